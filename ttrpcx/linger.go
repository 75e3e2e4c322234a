package ttrpcx

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

const (
	// lastAnswersTimeout is the time that peers have, when a connection ends, to take the end of it, and the last
	// answers if ShutdownTimeout does not give them more.
	lastAnswersTimeout = time.Second

	// lastRequestsTimeout is the time, when Serve stops, for the requests to be refused that have arrived over TCP.
	lastRequestsTimeout = 50 * time.Millisecond

	// lingerPoll is how often a connection is looked at that ends.
	lingerPoll = 2 * time.Millisecond

	// lingerReads is how often a connection is read each time. Without a bound, a peer that sends keeps it open.
	lingerReads = 64

	// tlsEnd is how many bytes end a TLS connection: the record of close_notify, see RFC 8446, section 5.2.
	tlsEnd = 5 + 2 + 1 + 16
)

// linger closes a served connection when the peer's kernel has all that was written to it, or at the time until. The
// bytes that the peer does not have by then are lost: linger returns how many. A unix socket needs none of this: what
// is written is at the peer at once.
//
// The kernel resets a TCP connection that is closed while bytes in its receive queue are unread, and drops what it has
// not sent: RFC 1122, section 4.2.2.13. So linger ends the output, and reads on, but only until the peer's kernel has
// all: a peer need not close. Shutting the input down would not help, because Linux then resets at the next byte.
func linger(conn net.Conn, until time.Time) (lost int) {
	end := 1 // the bit that ends a TCP stream counts as a byte
	closeWrite := func() {}
	if tlsConn, ok := conn.(*tls.Conn); ok {
		end += tlsEnd
		closeWrite = func() { _ = tlsConn.CloseWrite() }
	}
	tcp := tcpBelow(conn)
	if tcp == nil {
		return 0
	}
	defer func() { _ = tcp.Close() }()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		// It waits for a lock. A reader holds that while it answers a TLS peer's KeyUpdate, which takes as long as the
		// peer likes.
		closeWrite()
		_ = tcp.CloseWrite()
	}()
	soon := time.Now().Add(lastAnswersTimeout)
	b := make([]byte, 4<<10)
	for poll := time.Tick(lingerPoll); ; <-poll {
		_ = tcp.SetReadDeadline(time.Now().Add(lingerPoll))
		var err error
		for i := 0; i < lingerReads && err == nil; i++ {
			_, err = tcp.Read(b)
		}
		n := unacknowledged(tcp)
		lost = max(0, n-end)
		select {
		case <-closed:
			if n == 0 || lost == 0 && errors.Is(err, io.EOF) {
				return 0
			}
		default:
		}
		if now := time.Now(); !now.Before(until) || lost == 0 && !now.Before(soon) {
			return lost
		}
	}
}

// endInput makes Read fail after the bytes that have arrived, or, on TCP and vsock, after lastRequestsTimeout: there,
// shutdown(2) could lose them.
func endInput(conn net.Conn) {
	if unixConn, ok := conn.(*net.UnixConn); ok {
		_ = unixConn.CloseRead()
	} else {
		_ = conn.SetReadDeadline(time.Now().Add(lastRequestsTimeout))
	}
}

// tcpBelow returns the TCP connection of a served connection, or nil if that is something else.
func tcpBelow(conn net.Conn) *net.TCPConn {
	if tlsConn, ok := conn.(*tls.Conn); ok {
		conn = tlsConn.NetConn()
	}
	switch c := conn.(type) {
	case *stranger:
		return c.TCPConn
	case *net.TCPConn:
		return c
	}
	return nil
}
