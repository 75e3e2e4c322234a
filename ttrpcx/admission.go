package ttrpcx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// maxDescriptors is where a limit of descriptors limits nothing here.
const maxDescriptors = 1 << 30

// limits returns how many connections may be open, in all and of one user, and how many TLS handshakes may be under way
// in addition. The descriptors of the process allow for all of them, and for a reserve.
func (o ServerOptions) limits(descriptors int) (all, user, handshakes int) {
	room := max(2, descriptors-min(max(descriptors/8, 32), 512))
	if o.TLS != (TLSFiles{}) {
		handshakes = min(max(min(o.MaxConnections, room)/8, 16), 1024)
		room = max(2, room-2*handshakes)
	}
	all, user = o.MaxConnections, o.MaxUserConnections
	if room < all {
		all, user = room, min(user, room*3/4)
	}
	return all, user, handshakes
}

// receive judges the peer of a new connection by what is known at once. Then it serves the connection or, with TLS,
// starts its handshake.
func (s *serveRun) receive(conn net.Conn) {
	peer := Peer{Addr: conn.RemoteAddr()}
	err := s.options.Allow.identify(conn, &peer)
	if s.tls == nil || err != nil {
		s.serveConn(conn, conn, peer, err)
		return
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		s.serveConn(conn, conn, peer, errors.New("TLS needs TCP"))
		return
	}
	stranger := s.strangers.add(tcp)
	s.pending.Go(func() {
		tlsConn, err := s.handshake(stranger)
		if err == nil {
			peer.Certificate = tlsConn.ConnectionState().PeerCertificates[0]
		}
		s.serveConn(stranger, tlsConn, peer, err)
	})
}

func (s *serveRun) handshake(conn *stranger) (*tls.Conn, error) {
	timeout := min(handshakeTimeout, s.options.IOTimeout)
	ctx, cancel := context.WithTimeout(s.base, timeout)
	defer cancel()
	tlsConn := tls.Server(conn, s.tls.server())
	err := tlsConn.HandshakeContext(ctx)
	if dropped := s.strangers.remove(conn); dropped != nil {
		return nil, dropped
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("TLS handshake not finished within %v", timeout)
	} else if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	conn.known = true
	return tlsConn, nil
}

// enter counts a connection of the user, or returns an error if a limit is reached.
func (s *serveRun) enter(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.users[user]; {
	case s.total >= s.maxTotal && s.maxTotal < s.options.MaxConnections:
		return fmt.Errorf("%d connections are open, and RLIMIT_NOFILE leaves no descriptors for more", s.total)
	case s.total >= s.maxTotal:
		return fmt.Errorf("%d connections are open, which is the limit", s.total)
	case n >= s.maxUser:
		return fmt.Errorf("%d connections of %s are open, which is the limit for one user", n, user)
	}
	s.total++
	s.users[user]++
	return nil
}

// leave undoes enter.
func (s *serveRun) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}
