//go:build !linux

package testenv

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from the servers, which their owner
// stops.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
