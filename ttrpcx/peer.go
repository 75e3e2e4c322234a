package ttrpcx

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
)

// Peer is the process at the other end of a connection.
type Peer struct {
	// Addr is the peer's network address. It has no name for most clients of a unix socket.
	Addr net.Addr
	// Credentials are those of the peer on a unix socket. They are nil on TCP, and on platforms that have none.
	Credentials *Credentials
	// Certificate is the certificate with which a TLS peer has proved its identity. It is nil without TLS.
	Certificate *x509.Certificate
	// CID is the number of the virtual machine at the other end of vsock, where 2 is the host. It is 0 elsewhere.
	CID uint32
}

// Credentials are the effective ids of a process: SO_PEERCRED in socket(7) and unix(7), LOCAL_PEERCRED in unix(4) of
// darwin. They are those of the time when a client connected, or when a server started to listen. They stay the same
// when the process passes the descriptor to another process.
type Credentials struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	// PID is the process's number. The process may have ended and another may have its number: use it in logs, not to
	// decide.
	PID int
}

type peerKey struct{}

// PeerFromContext returns the caller. ctx is the context of a handler or an interceptor of a server that Serve runs.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// LogValue returns the attributes that identify the peer.
func (p Peer) LogValue() slog.Value {
	var attrs []slog.Attr
	if c := p.Credentials; c != nil {
		attrs = append(attrs, slog.Int("pid", c.PID), slog.Any("uid", c.UID), slog.Any("gid", c.GID))
	}
	if p.Certificate != nil {
		attrs = append(attrs, slog.String("subject", subject(p.Certificate)))
	}
	if p.CID != 0 {
		attrs = append(attrs, slog.Any("cid", p.CID))
	}
	if p.Addr != nil && p.Addr.Network() == "tcp" {
		attrs = append(attrs, slog.String("address", p.Addr.String()))
	}
	return slog.GroupValue(attrs...)
}

// user returns the name under which MaxUserConnections counts the peer's connections.
func (p Peer) user() string {
	switch {
	case p.Credentials != nil:
		return "uid " + strconv.FormatUint(uint64(p.Credentials.UID), 10)
	case p.Certificate != nil:
		return "subject " + subject(p.Certificate)
	case p.CID != 0:
		return "cid " + strconv.FormatUint(uint64(p.CID), 10)
	case p.Addr != nil && p.Addr.Network() == "tcp":
		host, _, _ := net.SplitHostPort(p.Addr.String())
		return "host " + host
	}
	return "anyone"
}

// subject returns the name in the certificate. A certificate for a service may have names outside the subject only: RFC
// 5280, section 4.1.2.6.
func subject(c *x509.Certificate) string {
	s := c.Subject.String()
	if s == "" && len(c.URIs) > 0 {
		s = c.URIs[0].String()
	}
	if s == "" && len(c.DNSNames) > 0 {
		s = c.DNSNames[0]
	}
	return s
}

// errCannotTell is the error of peerCredentials on platforms without peer credentials.
var errCannotTell = errors.New("this platform does not tell which user is at the other end of a unix socket")

// Allow names the users and groups whose processes may be at the other end of a unix socket, in addition to root and
// the user of this process. The zero Allow adds none. In a user namespace that does not map all ids, the overflow ids
// (65534, as a rule) are nobody's, not even this process's own: see user_namespaces(7).
type Allow struct {
	UIDs, GIDs []uint32
	// CIDs are for servers on vsock(7), in addition to 2, the host. The kernel tells which machine has connected, and
	// not which user there: 2 is whoever the host lets use its vsock or its hypervisor's socket, and 1 is all users of
	// this machine. A client names the machine in the address.
	CIDs []uint32
}

// addsPeers reports whether a adds any user or group.
func (a Allow) addsPeers() bool { return len(a.UIDs)+len(a.GIDs) > 0 }

// identify fills in what the kernel knows about the peer, and returns an error unless the peer is allowed.
func (a Allow) identify(conn net.Conn, peer *Peer) error {
	switch conn := conn.(type) {
	case *net.UnixConn:
		// On a platform without peer credentials there is nothing to check. The server logs that at its start.
		c, err := peerCredentials(conn)
		if errors.Is(err, errCannotTell) {
			return nil
		} else if err != nil {
			return err
		}
		peer.Credentials = c
		return a.check(c)
	default:
		vm, ok := peer.Addr.(vsockAddr)
		if !ok {
			return nil
		}
		peer.CID = vm.cid
		if vm.cid != hostCID && !slices.Contains(a.CIDs, vm.cid) {
			return fmt.Errorf("CID %d is not allowed", vm.cid)
		}
		return nil
	}
}

// check returns an error unless the peer is allowed.
func (a Allow) check(c *Credentials) error {
	unmapped := int64(c.UID) == overflowUID()
	switch {
	case !unmapped && (c.UID == 0 || c.UID == uint32(os.Geteuid()) || slices.Contains(a.UIDs, c.UID)):
		return nil
	case a.allowsGroup(c.GID), slices.ContainsFunc(c.Groups, a.allowsGroup):
		return nil
	}
	reason := ""
	if unmapped {
		reason = ", because it stands for all users that this user namespace does not map"
	}
	return fmt.Errorf("uid %d (gid %d, pid %d) is not allowed%s", c.UID, c.GID, c.PID, reason)
}

func (a Allow) allowsGroup(gid uint32) bool {
	return slices.Contains(a.GIDs, gid) && int64(gid) != overflowGID()
}
