package testenv

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from the servers, which their owner
// stops, and ends them with their owner should it be killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
