package ttrpcx

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerCredentials returns the credentials of the peer: LOCAL_PEERCRED and LOCAL_PEERPID in unix(4).
func peerCredentials(conn *net.UnixConn) (*Credentials, error) {
	c := new(Credentials)
	return c, control(conn, func(fd int) error {
		cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			return os.NewSyscallError("getsockopt LOCAL_PEERCRED", err)
		}
		c.UID = cred.Uid
		c.Groups = cred.Groups[:max(0, min(int(cred.Ngroups), len(cred.Groups)))]
		if len(c.Groups) > 0 { // the first is the effective group
			c.GID, c.Groups = c.Groups[0], c.Groups[1:]
		}
		c.PID, err = unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
		return os.NewSyscallError("getsockopt LOCAL_PEERPID", err)
	})
}
