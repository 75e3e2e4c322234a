//go:build unix

package ttrpcx

import "syscall"

// descriptorLimit returns how many descriptors the process may have, see RLIMIT_NOFILE in getrlimit(2). Go has raised
// the soft limit to the hard one.
func descriptorLimit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxDescriptors
	}
	return int(min(l.Cur, maxDescriptors))
}
