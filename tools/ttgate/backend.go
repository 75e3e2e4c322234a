package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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

	mu     sync.RWMutex  // read-locked during a unary call; locked to close shared
	shared *ttrpc.Client // for unary calls
}

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

// link asks the server for its schema, and makes the connection for unary calls.
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
	conn, err := ttrpcx.Dial(timed, b.server)
	if err != nil {
		return nil, err
	}
	return &link{
		schema: s, handler: handler, shared: ttrpc.NewClient(conn),
		streams: grpcconn.New(func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, b.connectTimeout)
			defer cancel()
			return ttrpcx.DialOnce(ctx, b.server)
		}),
	}, nil
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
	if !l.mu.TryRLock() {
		return status.Error(codes.Unavailable, "the backend is down: connection lost")
	}
	defer l.mu.RUnlock()
	return grpcconn.Call(ctx, l.shared, method, req, resp)
}

// stream opens a stream.
func (l *link) stream(ctx context.Context, method string, desc *grpc.StreamDesc) (grpc.ClientStream, error) {
	return l.streams.NewStream(ctx, desc, method)
}

// close closes the connection for unary calls when they have ended: their answers may have arrived and not be read yet.
func (l *link) close() {
	go func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = l.shared.Close()
	}()
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
