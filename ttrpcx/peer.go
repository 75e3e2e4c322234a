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

// Peer is the other side of a connection.
type Peer struct {
	// Addr is its network address, without a name for most clients of a unix socket.
	Addr net.Addr
	// Credentials are those of a unix socket's peer; nil where there are none: TCP, and platforms that cannot tell.
	Credentials *Credentials
	// Certificate is the one that a TLS peer has proved to own; nil without TLS.
	Certificate *x509.Certificate
}

// Credentials are a process's effective ids when it connected (or, of a server, listened): SO_PEERCRED in socket(7) and
// unix(7), LOCAL_PEERCRED in unix(4) of darwin. They do not follow a descriptor that is passed on.
type Credentials struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	// PID is the process. It may have ended, and its number be another's: good for a log, not for a decision.
	PID int
}

type peerKey struct{}

// PeerFromContext returns who called, given the context of a handler or interceptor below Serve.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// LogValue returns what identifies the peer.
func (p Peer) LogValue() slog.Value {
	var attrs []slog.Attr
	if c := p.Credentials; c != nil {
		attrs = append(attrs, slog.Int("pid", c.PID), slog.Any("uid", c.UID), slog.Any("gid", c.GID))
	}
	if p.Certificate != nil {
		attrs = append(attrs, slog.String("subject", subject(p.Certificate)))
	}
	if p.Addr != nil && p.Addr.Network() == "tcp" {
		attrs = append(attrs, slog.String("address", p.Addr.String()))
	}
	return slog.GroupValue(attrs...)
}

// user returns by whom the peer's connections are counted together.
func (p Peer) user() string {
	switch {
	case p.Credentials != nil:
		return "uid " + strconv.FormatUint(uint64(p.Credentials.UID), 10)
	case p.Certificate != nil:
		return "subject " + subject(p.Certificate)
	case p.Addr != nil && p.Addr.Network() == "tcp":
		host, _, _ := net.SplitHostPort(p.Addr.String())
		return "host " + host
	}
	return "anyone"
}

// subject returns whom the certificate is about. Those for services may have names outside the subject only: RFC 5280,
// section 4.1.2.6.
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

// errCannotTell is what peerCredentials returns where the platform has no peer credentials.
var errCannotTell = errors.New("this platform does not tell who is at the other end of a unix socket")

// Allow says whose processes may be at the other end of a unix socket, besides those of root and of this process's own
// user. The zero Allow adds nobody.
type Allow struct {
	UIDs, GIDs []uint32
}

// wide reports whether anyone is added.
func (a Allow) wide() bool { return len(a.UIDs)+len(a.GIDs) > 0 }

// check returns nil if the peer may be there.
func (a Allow) check(c *Credentials) error {
	switch {
	case c.UID == 0, c.UID == uint32(os.Geteuid()), slices.Contains(a.UIDs, c.UID), slices.Contains(a.GIDs, c.GID):
		return nil
	case slices.ContainsFunc(c.Groups, func(gid uint32) bool { return slices.Contains(a.GIDs, gid) }):
		return nil
	}
	return fmt.Errorf("uid %d (gid %d, pid %d) is not allowed", c.UID, c.GID, c.PID)
}
