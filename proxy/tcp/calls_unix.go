//go:build unix && (!linux || race)

package tcp

import "syscall"

// read reads once. p is not empty.
func read(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Read(int(fd), p) })
}

// write writes once. p is not empty.
func write(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(func() (int, error) { return syscall.Write(int(fd), p) })
}

// peek looks for a byte and leaves it. n is 0 at the end of the stream.
func peek(fd uintptr) (n int, errno syscall.Errno) {
	var b [1]byte
	return call(func() (int, error) {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return n, err
	})
}

func call(f func() (int, error)) (int, syscall.Errno) {
	for {
		n, err := f()
		switch errno, ok := err.(syscall.Errno); {
		case err == nil:
			return n, 0
		case !ok:
			return 0, syscall.EIO
		case errno != syscall.EINTR:
			return 0, errno
		}
	}
}
