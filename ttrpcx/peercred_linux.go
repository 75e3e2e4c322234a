package ttrpcx

import (
	"errors"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerCredentials returns the credentials of the peer: SO_PEERCRED and SO_PEERGROUPS in socket(7).
func peerCredentials(conn *net.UnixConn) (*Credentials, error) {
	c := new(Credentials)
	return c, control(conn, func(fd int) error {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_PEERCRED", err)
		}
		c.UID, c.GID, c.PID = cred.Uid, cred.Gid, int(cred.Pid)
		if c.Groups, err = peerGroups(fd); errors.Is(err, unix.ENOPROTOOPT) { // before Linux 4.13
			return nil
		}
		return err
	})
}

// peerGroups returns the supplementary groups. If its buffer is too small, the kernel says how large it must be.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size) > len(groups)*4:
			groups = make([]uint32, size/4)
		default:
			return nil, os.NewSyscallError("getsockopt SO_PEERGROUPS", errno)
		}
	}
}
