package main

import "golang.org/x/sys/unix"

func ownerOf(fd int) (owner, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return owner{}, err
	}
	return owner{uid: c.Uid, gid: c.Gid, pid: c.Pid}, nil
}
