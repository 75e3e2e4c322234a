package ttrpcx

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openOnly opens any file, a link itself included, and needs no permission for it.
const openOnly = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

// pathThrough returns a path that leads to the open directory, because there is no bindat(2).
func pathThrough(dir *os.File) (string, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("another user could exchange directory %s: mount /proc, or use another path: %w",
			dir.Name(), err)
	}
	return path, nil
}
