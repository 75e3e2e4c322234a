package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent returns how much of what was written to conn the kernel still holds for the peer, or 0 if that is not known.
// See SIOCOUTQ in tcp(7). For a unix socket, the kernel counts its own memory.
func unsent(conn net.Conn) (n int) {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // of TLS
		conn = outer.NetConn()
	}
	if socket, ok := conn.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		}
	}
	return n
}
