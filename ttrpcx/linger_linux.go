package ttrpcx

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many bytes of what was written to the connection are not at the peer yet. It returns 0 if
// the connection has ended, also if the peer has reset it: then nobody waits for them. See tcp(7).
func unacknowledged(conn *net.TCPConn) (n int) {
	_ = control(conn, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && info.State != unix.BPF_TCP_CLOSE {
			n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		}
		return err
	})
	return n
}
