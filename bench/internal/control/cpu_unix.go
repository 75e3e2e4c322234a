//go:build unix

package control

import (
	"syscall"
	"time"
)

// cpu returns the time that the process has run, in user mode and in the kernel, or -1 if the system does not tell.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
