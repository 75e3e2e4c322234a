package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// body is the body of a gRPC request. grpc.Server.ServeHTTP reads bodies as fast as they come and queues them, without
// a bound. So Read waits while more than a message is queued, and fails if there is no memory for a while.
type body struct {
	io.ReadCloser
	gate      *gate
	host      string
	interrupt func() // ends a Read that waits for the client; nil if Close does that

	mu      sync.Mutex
	changed sync.Cond
	queued  int // bytes that were read and are in no message yet that the handler has received
	reading bool
	closed  bool
	giveUp  func() // ends the call when there is no memory, if not nil
}

const (
	// maxRead is how many bytes are read at once.
	maxRead = 32 << 10

	// memoryTimeout is how long a Read waits for memory while the handler receives nothing, as long as a frame waits in
	// the server's Guard.
	memoryTimeout = 1500 * time.Millisecond
)

// errFull is the error of a Read that finds no memory. Of all errors, grpc.Server.ServeHTTP makes only those of HTTP/2
// what they are in gRPC: this one ResourceExhausted.
var errFull = http2.StreamError{
	Code: http2.ErrCodeEnhanceYourCalm, Cause: errors.New("no memory is left (-max-memory)"),
}

// errNoMemory is the error of a call that ends for want of memory.
var errNoMemory = status.Error(codes.ResourceExhausted, "no memory is left for the request (-max-memory)")

type bodyKey struct{}

// newBody gives r a body, and a context in which the gRPC server's handlers find it.
func (g *gate) newBody(r *http.Request, interrupt func()) *http.Request {
	b := &body{ReadCloser: r.Body, gate: g, host: hostOf(r.RemoteAddr), interrupt: interrupt}
	b.changed.L = &b.mu
	r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, b))
	r.Body = b
	return r
}

// Read reads a part. It changes a fault of vanguard v0.4.0: with an empty message, its body returns io.EOF, although
// others may follow.
func (b *body) Read(p []byte) (int, error) {
	p = p[:min(len(p), maxRead)]
	if err := b.begin(len(p)); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.gate.memory.give(b.host, len(p)-n)
	if b.closed {
		b.gate.memory.give(b.host, n)
	} else {
		b.queued += n
	}
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// begin waits for room for n bytes.
func (b *body) begin(n int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.queued > int(b.gate.maxMessage)+maxRead && !b.closed {
		b.changed.Wait()
	}
	queued, since := b.queued, time.Now()
	for pause := time.Millisecond; !b.closed; pause = min(2*pause, minPause) {
		switch {
		case b.gate.memory.take(b.host, n):
			b.reading = true
			return nil
		case b.queued < queued:
			queued, since = b.queued, time.Now()
		case time.Since(since) > memoryTimeout:
			if b.giveUp != nil {
				b.giveUp() // the handler may be waiting for something else
			}
			return errFull
		}
		b.mu.Unlock()
		time.Sleep(pause)
		b.mu.Lock()
	}
	return http.ErrBodyReadAfterClose
}

// untilFull returns a context that ends with errNoMemory when the body of the call of ctx finds no memory.
func untilFull(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if b, ok := ctx.Value(bodyKey{}).(*body); ok {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.giveUp = func() { cancel(errNoMemory) }
	}
	return ctx, func() { cancel(nil) }
}

// received notes that the handler has a message of n bytes.
func (b *body) received(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		n = min(n, b.queued)
		b.queued -= n
		b.gate.memory.give(b.host, n)
		b.changed.Broadcast()
	}
}

// Close changes another fault of vanguard's body: its Close waits for its Read, so that a call which the server has
// ended would go on until the client sends something.
func (b *body) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.gate.memory.give(b.host, b.queued)
		b.changed.Broadcast()
		if b.reading && b.interrupt != nil {
			b.interrupt()
		}
	}
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

// receipts tells bodies which messages were received.
type receipts struct{}

func (receipts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (receipts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (receipts) HandleConn(context.Context, stats.ConnStats)                       {}

func (receipts) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		if b, ok := ctx.Value(bodyKey{}).(*body); ok {
			b.received(in.WireLength)
		}
	}
}
