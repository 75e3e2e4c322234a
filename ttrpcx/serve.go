package ttrpcx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Serve lets server answer the calls that arrive at l, until ctx ends or l is closed. Then it closes l, waits until the
// open calls have finished and the peers have their answers, and closes the connections. New calls get Unavailable
// meanwhile. If ServerOptions.ShutdownTimeout is too short for that, the rest is cut off, and Serve returns an error
// that says so. It returns within ShutdownTimeout and 2 s, whatever peers do. server cannot serve again.
//
// Only peers that l's options allow can call server. Handlers get the caller from PeerFromContext. A wire.Guard checks
// and limits what the peers send.
func Serve(ctx context.Context, server *ttrpc.Server, l *Listener) error {
	return serve(ctx, server, l, func() {})
}

// serve is Serve, and calls ending before it lets connections end. ending must not wait.
func serve(ctx context.Context, server *ttrpc.Server, l *Listener, ending func()) error {
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
	total, user, handshakes := l.options.limits(descriptorLimit())
	s.maxTotal, s.maxUser, s.strangers = total, user, newStrangers(handshakes)
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()

	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.accept(ctx)
	}()
	stopping, notified := make(chan struct{}), make(chan struct{})
	go func() { // systemd may be busy
		defer close(notified)
		s.notify("READY=1")
		<-stopping
		s.notify("STOPPING=1")
	}()
	await(ctx.Done(), accepting)
	ending()
	close(stopping)
	stopped := make(chan error, 1)
	go func() {
		_ = l.Close()
		<-accepting
		err := s.drain()
		_ = loglimit.Flush(ctx, s.events) // a log that cannot be written is not an error of the server
		waitAll([]<-chan struct{}{notified}, endInputTimeout)
		stopped <- err
	}()
	select {
	case err := <-stopped:
		return err
	case <-time.After(l.options.ShutdownTimeout + stopTimeout):
		s.fail("connections or the Logger did not end %v after the ShutdownTimeout", stopTimeout)
		return s.stopError()
	}
}

// await waits for one of both, on a stack of more than 64 KiB. When the runtime collects garbage, it finds out how much
// stack the goroutines use on average, and gives that to new ones: https://go.dev/doc/go1.19#runtime. While there are
// few connections, most goroutines only wait, with little stack. Then the stack of each call's goroutine would have to
// grow, which takes a tenth of the CPU time of a small call. With hundreds of connections, this one has no effect.
//
//go:noinline
func await(a, b <-chan struct{}) {
	var stack [64 << 10]byte
	select {
	case <-a:
	case <-b:
	}
	runtime.KeepAlive(&stack)
}

// serveRun is one run of Serve.
type serveRun struct {
	*Listener
	server  *ttrpc.Server
	guard   *wire.Guard
	events  loglimit.Handler
	base    context.Context // the parent of every connection's context
	cancel  context.CancelFunc
	pending sync.WaitGroup // running handshakes

	strangers         *strangers
	maxTotal, maxUser int

	mu     sync.Mutex
	total  int            // connections, without those in strangers
	users  map[string]int // the same, by Peer.user
	conns  map[*servedConn]struct{}
	state  serveState
	end    time.Time // when linger must give up, once the state is not stateServing
	lost   int       // bytes that did not reach their peers since then
	gone   int       // the peers of these
	failed []string  // what else is wrong with the stop
}

type serveState int

const (
	stateServing  serveState = iota
	stateDraining            // every new call gets Unavailable, on new connections as well
	stateClosing             // new connections are closed
)

// accept takes connections until the listener is closed. Any other error may go away: for example, too many files are
// open until connections close.
func (s *serveRun) accept(ctx context.Context) {
	var pause time.Duration
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			pause = 0
			s.receive(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.warn("accept failed; trying again", "error", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// serveConn passes a connection to ttrpc, unless the peer is refused already or has too many. raw is the connection
// below TLS; without TLS, it is conn.
func (s *serveRun) serveConn(raw, conn net.Conn, peer Peer, refused error) {
	if refused == nil {
		refused = s.enter(peer.user())
	}
	if refused != nil {
		_ = raw.Close()
		if s.base.Err() == nil {
			s.warn("connection refused", "peer", peer, "reason", refused)
		}
		return
	}
	guarded := conn
	if tlsConn, ok := conn.(*tls.Conn); ok {
		guarded = servedTLS{tlsConn, raw.(*stranger)}
	}
	served := &servedConn{
		GuardedConn: s.guard.Wrap(guarded, peer.user()), inner: conn, run: s, peer: peer, ended: make(chan struct{}),
	}
	if !s.add(served) {
		_ = served.Close()
		return
	}
	// ttrpc's Serve accepts the connection, starts its goroutine and returns the error of the second Accept.
	ctx := served.Account().NewContext(context.WithValue(s.base, peerKey{}, peer))
	err := s.server.Serve(ctx, &oneConnListener{conn: served})
	if !errors.Is(err, io.EOF) {
		_ = served.Close()
		if s.base.Err() == nil {
			s.warn("ttrpc refused a connection", "peer", peer, "error", err)
		}
	}
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

func (s *serveRun) setState(next serveState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateServing {
		s.end = time.Now().Add(s.options.ShutdownTimeout + lastAnswersTimeout)
	}
	s.state = next
}

// lingerUntil returns when linger must give up.
func (s *serveRun) lingerUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateServing {
		return time.Now().Add(lastAnswersTimeout)
	}
	return s.end
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

// remove ends the count of a connection. lost is what linger has returned for it.
func (s *serveRun) remove(c *servedConn, lost int) {
	reason := c.Err()
	if reason == nil && lost > 0 {
		reason = fmt.Errorf("the peer has not taken %d bytes that were written to it", lost)
	}
	if reason != nil {
		s.warn("connection closed", "peer", c.peer, "reason", reason)
	}
	s.leave(c.peer.user())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.state != stateServing && lost > 0 {
		s.lost += lost
		s.gone++
	}
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

// servedConn is an admitted connection.
type servedConn struct {
	*wire.GuardedConn
	inner net.Conn
	run   *serveRun
	peer  Peer
	once  sync.Once
	ended chan struct{} // closed when Close is done
}

// Close gives the peer time to take what was written, closes the connection, and ends its count.
func (c *servedConn) Close() error {
	c.once.Do(func() {
		c.CloseWrite()
		lost := linger(c.inner, c.run.lingerUntil())
		_ = c.GuardedConn.Close()
		c.run.remove(c, lost)
		close(c.ended)
	})
	return nil
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
