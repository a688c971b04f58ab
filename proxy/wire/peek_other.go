//go:build !unix

package wire

// silent knows no way to look, so no connection is used twice.
func silent(uintptr) bool { return false }
