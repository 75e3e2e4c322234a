package ttrpcx

import "golang.org/x/sys/unix"

// openOnly opens any file, a link itself included, and needs no permission for it.
const openOnly = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
