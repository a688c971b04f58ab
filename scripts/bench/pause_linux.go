package main

import (
	"syscall"
	"time"
)

// pause sleeps for d, or less. The timers of an otherwise idle Go program are
// late by up to a millisecond, which is more than what is measured.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early
}
