package ttrpcx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// lastAnswersTimeout is the time that peers have, when Serve stops, to read the answers to their last calls.
const lastAnswersTimeout = time.Second

// Serve lets server answer the calls that arrive at l, until ctx ends or l fails. Then it closes l, waits until the
// open calls have finished, and closes the connections. New calls get Unavailable meanwhile. If
// ServerOptions.ShutdownTimeout is too short for the open calls, they are cut off, and Serve returns an error that says
// so. server cannot serve again.
//
// Only peers that l's options allow can call server. Handlers get the caller from PeerFromContext. A wire.Guard checks
// and limits what the peers send.
func Serve(ctx context.Context, server *ttrpc.Server, l *Listener) error {
	s := &serveRun{
		Listener: l,
		server:   server,
		guard: wire.NewGuard(wire.GuardOptions{
			MaxCalls: l.options.MaxCalls, MaxUserCalls: l.options.MaxUserCalls, MaxMemory: l.options.MaxMemory,
			IOTimeout: l.options.IOTimeout, Services: l.options.Services,
		}),
		events: loglimit.New(l.options.Logger.Handler(), eventBurst),
		users:  map[string]int{},
		conns:  map[*servedConn]struct{}{},
	}
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()
	s.notify("READY=1")

	accepting := make(chan error, 1)
	go func() { accepting <- s.accept(ctx) }()
	var failed error
	select {
	case <-ctx.Done():
		_ = l.Close()
		failed = <-accepting
	case failed = <-accepting:
		_ = l.Close()
	}
	s.notify("STOPPING=1")
	err := errors.Join(failed, s.drain())
	_ = loglimit.Flush(ctx, s.events) // a log that cannot be written is not an error of the server
	return err
}

// serveRun is one run of Serve.
type serveRun struct {
	*Listener
	server  *ttrpc.Server
	guard   *wire.Guard
	events  loglimit.Handler
	base    context.Context // the parent of every connection's context
	cancel  context.CancelFunc
	pending sync.WaitGroup // running serveConn

	mu    sync.Mutex
	total int            // connections, handshakes included
	users map[string]int // the same, by Peer.user
	conns map[*servedConn]struct{}
	state serveState
}

type serveState int

const (
	stateServing  serveState = iota
	stateDraining            // every new call gets Unavailable, on new connections as well
	stateClosing             // new connections are closed
)

// accept takes connections until the listener is closed.
func (s *serveRun) accept(ctx context.Context) error {
	var pause time.Duration
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			s.pending.Go(func() { s.serveConn(conn) })
		case errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			// For example, too many files are open until connections close.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.warn("accept failed; trying again", "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		default:
			return fmt.Errorf("accept at %s: %w", s, err)
		}
	}
}

func isTemporary(err error) bool {
	temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && temporary.Temporary()
}

// serveConn finds out which peer has connected, and passes the connection to ttrpc if the peer is allowed.
func (s *serveRun) serveConn(conn net.Conn) {
	peer := Peer{Addr: conn.RemoteAddr()}
	served, err := s.admit(conn, &peer)
	if err != nil {
		if s.base.Err() == nil {
			s.warn("connection refused", "peer", peer, "reason", err)
		}
		_ = conn.Close()
		return
	}
	if !s.add(served) {
		_ = served.Close()
		return
	}
	// ttrpc's Serve accepts the connection, starts its goroutine and returns the error of the second Accept.
	ctx := served.Account().NewContext(context.WithValue(s.base, peerKey{}, peer))
	err = s.server.Serve(ctx, &oneConnListener{conn: served})
	if !errors.Is(err, io.EOF) {
		_ = served.Close()
		if s.base.Err() == nil {
			s.warn("ttrpc refused a connection", "peer", peer, "error", err)
		}
	}
}

// admit checks the peer and the limits, and does the TLS handshake. It fills in the peer, and returns the connection
// for ttrpc, or an error if the peer is refused.
func (s *serveRun) admit(conn net.Conn, peer *Peer) (*servedConn, error) {
	if err := s.options.Allow.identify(conn, peer); err != nil {
		return nil, err
	}
	user := peer.user()
	if err := s.enter(user); err != nil {
		return nil, err
	}
	if s.tls != nil {
		tlsConn, err := s.handshake(conn)
		s.leave(user)
		if err != nil {
			return nil, err
		}
		conn, peer.Certificate = tlsConn, tlsConn.ConnectionState().PeerCertificates[0]
		user = peer.user()
		if err := s.enter(user); err != nil {
			return nil, err
		}
	}
	served := &servedConn{GuardedConn: s.guard.Wrap(conn, user), inner: conn, ended: make(chan struct{})}
	served.release = func() {
		if err := served.Err(); err != nil {
			s.warn("connection closed", "peer", *peer, "reason", err)
		}
		s.remove(served)
		s.leave(user)
	}
	return served, nil
}

func (s *serveRun) handshake(conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(s.base, s.options.IOTimeout)
	defer cancel()
	tlsConn := tls.Server(conn, s.tls.server())
	err := tlsConn.HandshakeContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("TLS handshake not finished within %v", s.options.IOTimeout)
	} else if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return tlsConn, nil
}

// drain ends all connections. Their open calls have ShutdownTimeout to finish.
func (s *serveRun) drain() error {
	s.setState(stateDraining)
	if n := s.calls(); n > 0 {
		s.options.Logger.Info("waiting for open calls", "calls", n, "timeout", s.options.ShutdownTimeout)
	}
	// First tell all connections, then wait for all. They stay open until the last one is done, to answer late calls.
	var drained []<-chan struct{}
	for _, c := range s.open() {
		drained = append(drained, c.Drain())
	}
	var cut error
	if late := waitAll(drained, s.options.ShutdownTimeout); late > 0 {
		what := fmt.Sprintf("answers to %d peers", late)
		if n := s.calls(); n > 0 {
			what = fmt.Sprintf("%d calls", n)
		}
		cut = fmt.Errorf("stop: %s were cut off after %v", what, s.options.ShutdownTimeout)
	}

	s.setState(stateClosing)
	if cut == nil {
		s.cancel() // ends handshakes
		s.pending.Wait()
		s.answerLast()
	}
	var closed sync.WaitGroup
	for _, c := range s.open() {
		closed.Go(func() { _ = c.Close() }) // it may wait for the peer
	}
	closed.Wait()
	// Cancel the remaining handlers after the connections are closed. Otherwise clients would get the handlers'
	// Canceled, which looks as if the client had cancelled the call.
	s.cancel()
	s.pending.Wait()
	_ = s.server.Close()
	return cut
}

// answerLast ends the input of all connections. ttrpc ends each connection when it has read the bytes that have
// arrived. On Linux, a peer on a unix socket cannot write any more then, so every call that it could send gets an
// answer. On TCP, a request that the peer sends from then on is lost.
func (s *serveRun) answerLast() {
	var ended []<-chan struct{}
	for _, c := range s.open() {
		c.closeRead()
		ended = append(ended, c.ended)
	}
	waitAll(ended, lastAnswersTimeout)
}

// waitAll waits until all channels are closed or the timeout is over. It returns how many are not closed.
func waitAll(all []<-chan struct{}, timeout time.Duration) (late int) {
	timer, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for _, c := range all {
		select {
		case <-c:
			continue
		case <-timer.Done():
		}
		select {
		case <-c:
		default:
			late++
		}
	}
	return late
}

// eventBurst is how many lines of one kind are logged in a minute, because peers can cause as many as they like.
const eventBurst = 20

// warn logs an event that a peer has caused.
func (s *serveRun) warn(message string, attrs ...any) {
	slog.New(s.events).WarnContext(s.base, message, attrs...)
}

func (s *serveRun) notify(state string) {
	if err := notify(state); err != nil {
		s.options.Logger.Warn("cannot notify systemd", "state", state, "error", err)
	}
}

// enter counts a connection of the user, or returns an error if a limit is reached.
func (s *serveRun) enter(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.users[user]; {
	case s.total >= s.options.MaxConnections:
		return fmt.Errorf("%d connections are open, which is the limit", s.total)
	case n >= s.options.MaxUserConnections:
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

func (s *serveRun) setState(next serveState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = next
}

// add reports whether the connection can still be served.
func (s *serveRun) add(c *servedConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case stateClosing:
		return false
	case stateDraining:
		c.Drain()
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *serveRun) remove(c *servedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *serveRun) open() []*servedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*servedConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// calls returns how many calls are open on all connections.
func (s *serveRun) calls() int {
	n := 0
	for _, c := range s.open() {
		n += c.Calls()
	}
	return n
}

// servedConn is an admitted connection. Close calls release, which ends its count.
type servedConn struct {
	*wire.GuardedConn
	inner   net.Conn
	once    sync.Once
	release func()
	ended   chan struct{} // closed after release
}

func (c *servedConn) Close() error {
	err := c.GuardedConn.Close()
	c.once.Do(func() {
		c.release()
		close(c.ended)
	})
	return err
}

// closeRead makes Read return io.EOF after the bytes that have arrived.
func (c *servedConn) closeRead() {
	conn := c.inner
	if tlsConn, ok := conn.(*tls.Conn); ok {
		conn = tlsConn.NetConn()
	}
	if half, ok := conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
	}
}

// oneConnListener is a listener that accepts one connection, and then returns io.EOF.
type oneConnListener struct{ conn net.Conn }

func (l *oneConnListener) Accept() (net.Conn, error) {
	conn := l.conn
	l.conn = nil
	if conn == nil {
		return nil, io.EOF
	}
	return conn, nil
}

func (l *oneConnListener) Close() error   { return nil }
func (l *oneConnListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
