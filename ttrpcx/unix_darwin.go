package ttrpcx

import "golang.org/x/sys/unix"

// openOnly opens a link itself, and any other file that can be read.
const openOnly = unix.O_RDONLY | unix.O_SYMLINK | unix.O_NONBLOCK | unix.O_CLOEXEC
