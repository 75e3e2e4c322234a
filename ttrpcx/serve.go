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

// farewell bounds how long Serve waits, when it stops, for peers to take the answers to their last calls.
const farewell = time.Second

// Serve lets server answer the calls that come in at l, until ctx ends. Then it closes l, lets the calls that are open
// finish, answers further ones with Unavailable, and closes the connections when no call is open or
// ServerOptions.ShutdownTimeout is over; calls and answers that were cut off by that are an error. It returns early if l fails.
// server cannot serve again.
//
// Only peers that l's options allow get as far as server, each with a context of its own that PeerFromContext reads.
// A wire.Guard stands between them.
func Serve(ctx context.Context, server *ttrpc.Server, l *Listener) error {
	s := &serving{
		Listener: l,
		server:   server,
		guard: wire.NewGuard(wire.GuardOptions{
			MaxCalls: l.options.MaxCalls, IOTimeout: l.options.IOTimeout, Services: l.options.Services,
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
	_ = s.events.Flush(ctx) // the log's own trouble is not the server's
	return err
}

// serving is one run of Serve.
type serving struct {
	*Listener
	server  *ttrpc.Server
	guard   *wire.Guard
	events  loglimit.Handler
	base    context.Context // of every connection
	cancel  context.CancelFunc
	pending sync.WaitGroup // admit

	mu    sync.Mutex
	total int            // connections, handshakes included
	users map[string]int // the same, by Peer.user
	conns map[*servedConn]struct{}
	stage stage
}

// stage is how far Serve has come.
type stage int

const (
	running  stage = iota
	draining       // new connections get Unavailable for each call, as the others do
	closing        // new connections are closed
)

// accept takes connections until the listener is closed.
func (s *serving) accept(ctx context.Context) error {
	var pause time.Duration
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			pause = 0
			s.pending.Go(func() { s.admit(conn) })
		case errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			// Such as too many open files: it passes when connections close.
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

// admit finds out who has connected and hands the connection to ttrpc if they may.
func (s *serving) admit(conn net.Conn) {
	peer := Peer{Addr: conn.RemoteAddr()}
	served, err := s.guarded(conn, &peer)
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
	// Serve takes the one connection, starts its goroutine and returns the error of the second Accept.
	err = s.server.Serve(context.WithValue(s.base, peerKey{}, peer), &oneConn{conn: served})
	if !errors.Is(err, io.EOF) {
		_ = served.Close()
		if s.base.Err() == nil {
			s.warn("ttrpc refused a connection", "peer", peer, "error", err)
		}
	}
}

// guarded returns the connection, secured, guarded and counted, and fills in who the peer is. It returns an error if the
// peer may not call.
func (s *serving) guarded(conn net.Conn, peer *Peer) (*servedConn, error) {
	if unixConn, ok := conn.(*net.UnixConn); ok {
		c, err := peerCredentials(unixConn)
		if err != nil && !errors.Is(err, errCannotTell) {
			return nil, err
		}
		peer.Credentials = c
		if err == nil {
			if err := s.options.Allow.check(c); err != nil {
				return nil, err
			}
		}
	}
	user := peer.user()
	if err := s.enter(user); err != nil {
		return nil, err
	}
	if s.tls != nil {
		secured, err := s.handshake(conn)
		s.leave(user)
		if err != nil {
			return nil, err
		}
		conn, peer.Certificate = secured, secured.ConnectionState().PeerCertificates[0]
		user = peer.user()
		if err := s.enter(user); err != nil {
			return nil, err
		}
	}
	served := &servedConn{GuardedConn: s.guard.Wrap(conn), inner: conn, ended: make(chan struct{})}
	served.release = func() {
		if err := served.Err(); err != nil {
			s.warn("connection closed", "peer", *peer, "reason", err)
		}
		s.remove(served)
		s.leave(user)
	}
	return served, nil
}

func (s *serving) handshake(conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(s.base, s.options.IOTimeout)
	defer cancel()
	secured := tls.Server(conn, s.tls.server())
	err := secured.HandshakeContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("TLS handshake not finished within %v", s.options.IOTimeout)
	} else if err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// drain ends all connections, the calls of which have ShutdownTimeout to finish.
func (s *serving) drain() error {
	s.enterStage(draining)
	if n := s.calls(); n > 0 {
		s.options.Logger.Info("waiting for open calls", "calls", n, "timeout", s.options.ShutdownTimeout)
	}
	// All are told before any is waited for; all stay open until the last is done, to answer late calls.
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

	s.enterStage(closing)
	if cut == nil {
		s.cancel() // handshakes
		s.pending.Wait()
		s.answerLast()
	}
	var closed sync.WaitGroup
	for _, c := range s.open() {
		closed.Go(func() { _ = c.Close() }) // may linger
	}
	closed.Wait()
	// Handlers that are cut off hear of it last: their Canceled would tell clients that they had given up themselves.
	s.cancel()
	s.pending.Wait()
	_ = s.server.Close()
	return cut
}

// answerLast ends the input of all connections, so that ttrpc ends them when it has read what has arrived. On Linux, the
// peers of unix sockets cannot write from then on, so every call that they could send gets an answer. What the peers of
// TCP send meanwhile is lost.
func (s *serving) answerLast() {
	var ended []<-chan struct{}
	for _, c := range s.open() {
		c.closeRead()
		ended = append(ended, c.ended)
	}
	waitAll(ended, farewell)
}

// waitAll waits until all channels are closed and returns how many were not in time.
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

// eventBurst is how many lines of one kind peers can bring about in a minute.
const eventBurst = 20

// warn logs what a peer has brought about.
func (s *serving) warn(message string, attrs ...any) {
	slog.New(s.events).WarnContext(s.base, message, attrs...)
}

func (s *serving) notify(state string) {
	if err := notify(state); err != nil {
		s.options.Logger.Warn("systemd was not told", "state", state, "error", err)
	}
}

// enter counts a connection, or says why there may be no further one.
func (s *serving) enter(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.users[user]; {
	case s.total >= s.options.MaxConnections:
		return fmt.Errorf("%d connections are open, the most that may be", s.total)
	case n >= s.options.MaxUserConnections:
		return fmt.Errorf("%d connections of %s are open, the most that one user may have", n, user)
	}
	s.total++
	s.users[user]++
	return nil
}

// leave undoes enter.
func (s *serving) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}

func (s *serving) enterStage(next stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = next
}

// add reports whether the connection may be served.
func (s *serving) add(c *servedConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.stage {
	case closing:
		return false
	case draining:
		c.Drain()
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *serving) remove(c *servedConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *serving) open() []*servedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*servedConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// calls returns how many calls are open on all connections.
func (s *serving) calls() int {
	n := 0
	for _, c := range s.open() {
		n += c.Calls()
	}
	return n
}

// servedConn is a connection that is counted until it is closed.
type servedConn struct {
	*wire.GuardedConn
	inner   net.Conn
	once    sync.Once
	release func()
	ended   chan struct{} // closed once it is released
}

func (c *servedConn) Close() error {
	err := c.GuardedConn.Close()
	c.once.Do(func() {
		c.release()
		close(c.ended)
	})
	return err
}

// closeRead makes reads end after what has arrived.
func (c *servedConn) closeRead() {
	conn := c.inner
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if half, ok := conn.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
	}
}

// oneConn is a listener that accepts one connection, once.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	conn := l.conn
	l.conn = nil
	if conn == nil {
		return nil, io.EOF
	}
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
