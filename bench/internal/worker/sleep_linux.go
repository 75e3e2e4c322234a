package worker

import (
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// Of the main thread and those that it starts: the kernel may be late by so many nanoseconds.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}

func sleep(d time.Duration) {
	if d > 0 {
		t := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&t, nil) // a signal makes it shorter, which the next one makes up for
	}
}
