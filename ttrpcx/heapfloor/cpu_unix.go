//go:build unix

package heapfloor

import (
	"syscall"
	"time"
)

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0 // POSIX knows no error for these arguments
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
