//go:build !unix

package wire

// silent takes every connection for open: what it was shows when it is used.
func silent(uintptr) bool { return true }
