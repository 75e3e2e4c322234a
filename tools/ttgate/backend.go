package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/tools/grpcconn"
	"example.com/ttrpc-starter/ttrpcx"
)

// backend is the ttrpc server behind the gate. One connection to it is there to tell when it comes and goes.
type backend struct {
	*options
	statuses *statuses
	handler  func(*schema) (http.Handler, error) // made for each schema

	up   atomic.Pointer[link]  // nil while the server is down
	down atomic.Pointer[error] // why
}

// link is a backend from when it came until it goes.
type link struct {
	*schema
	handler http.Handler
	streams *grpcconn.Conn // each on a connection of its own, so that it can be cancelled
	dial    func(context.Context) (net.Conn, error)

	mu     sync.Mutex
	shared []*shared // connections for unary calls
	closed bool
}

// shared is a connection for unary calls.
type shared struct {
	*ttrpc.Client
	calls int // that are open; guarded by the link's mu
}

// callsPerConn is how many unary calls share a connection. A server of ttrpcx lets 256 of one run, and has others wait.
const callsPerConn = 128

const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// run keeps the link until ctx ends.
func (b *backend) run(ctx context.Context) {
	said := ""
	for pause := minPause; ctx.Err() == nil; pause = min(2*pause, maxPause) {
		connected, err := b.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		b.down.Store(&err)
		if connected {
			pause, said = minPause, ""
		}
		if said != err.Error() {
			said = err.Error()
			b.log.Warn("backend down", "address", b.server.Address, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// follow connects to the server and returns when the connection is lost. connected means that there was a link.
func (b *backend) follow(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan error, 1)
	dial := func(ctx context.Context) (net.Conn, error) {
		conn, err := ttrpcx.DialOnce(ctx, b.server)
		return &watchedConn{Conn: conn, lost: lost}, err
	}
	kept := grpcconn.New(dial).Keep(ctx)
	l, err := b.link(ctx, kept)
	if err != nil {
		return false, err
	}
	defer l.close()
	b.up.Store(l)
	defer b.up.Store(nil)
	defer b.statuses.clear()
	if err := b.statuses.follow(ctx, kept, l.schema); err != nil {
		return false, fmt.Errorf("ask for its health: %w", err)
	}
	b.log.Info("backend up", "address", b.server.Address, "services", l.names())
	select {
	case err := <-lost:
		return true, fmt.Errorf("connection lost: %w", err)
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// link asks the server for its schema.
func (b *backend) link(ctx context.Context, kept *grpcconn.Conn) (*link, error) {
	timed, cancel := context.WithTimeoutCause(ctx, b.connectTimeout,
		fmt.Errorf("it does not answer within %v (-connect-timeout)", b.connectTimeout))
	defer cancel()
	s, err := b.schema(timed, kept)
	if err != nil {
		if timed.Err() != nil && ctx.Err() == nil {
			err = context.Cause(timed)
		}
		return nil, err
	}
	handler, err := b.handler(s)
	if err != nil {
		return nil, fmt.Errorf("use its schema: %w", err)
	}
	l := &link{schema: s, handler: handler}
	l.dial = func(ctx context.Context) (net.Conn, error) { return ttrpcx.Dial(ctx, b.server) }
	l.streams = grpcconn.New(func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, b.connectTimeout)
		defer cancel()
		return ttrpcx.DialOnce(ctx, b.server)
	})
	return l, nil
}

// current returns the link, or the status of calls that find none.
func (b *backend) current() (*link, error) {
	if l := b.up.Load(); l != nil {
		return l, nil
	}
	if err := b.down.Load(); err != nil {
		return nil, status.Errorf(codes.Unavailable, "the backend is down: %v", *err)
	}
	return nil, status.Error(codes.Unavailable, "the backend was not reached yet")
}

// call makes a unary call. ttrpc cannot cancel one by itself: if ctx ends, the server goes on with it until the
// deadline that it was told.
func (l *link) call(ctx context.Context, method string, req, resp proto.Message) error {
	conn, err := l.take(ctx)
	if err != nil {
		return err
	}
	defer l.give(conn)
	return grpcconn.Call(ctx, conn.Client, method, req, resp)
}

// take returns a connection for a call.
func (l *link) take(ctx context.Context) (*shared, error) {
	if conn, err := l.find(); conn != nil || err != nil {
		return conn, err
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the backend is down: %v", err)
	}
	s := &shared{Client: ttrpc.NewClient(conn), calls: 1}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shared = append(l.shared, s)
	return s, nil
}

// find returns a connection that has room for a call, or nil if there is none.
func (l *link) find() (*shared, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, status.Error(codes.Unavailable, "the backend is down: connection lost")
	}
	for _, s := range l.shared {
		if s.calls < callsPerConn {
			s.calls++
			return s, nil
		}
	}
	return nil, nil
}

// give ends a call. Of the connections without calls, one stays.
func (l *link) give(s *shared) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.calls--; s.calls == 0 && (l.closed || s != l.shared[0]) {
		l.shared = slices.DeleteFunc(l.shared, func(other *shared) bool { return other == s })
		_ = s.Close()
	}
}

// stream opens a stream.
func (l *link) stream(ctx context.Context, method string, desc *grpc.StreamDesc) (grpc.ClientStream, error) {
	return l.streams.NewStream(ctx, desc, method)
}

// close closes the connections for unary calls, when these have ended: their answers may have arrived and not be read
// yet.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, s := range l.shared {
		if s.calls == 0 {
			_ = s.Close()
		}
	}
}

// watchedConn tells when it is lost.
type watchedConn struct {
	net.Conn
	lost chan<- error
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		select {
		case c.lost <- err:
		default:
		}
	}
	return n, err
}
