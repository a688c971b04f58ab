//go:build unix

package wire

import "syscall"

// silent reports whether a read from the socket would wait: no byte, no end
// and no error is there. The socket is in non-blocking mode.
func silent(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		}
	}
}
