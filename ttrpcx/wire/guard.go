package wire

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
)

const (
	// DefaultMaxCalls is the number of calls that may be open on one connection if the options do not say.
	DefaultMaxCalls = 256

	// maxReceiving bounds the bytes of all large frames that are being received, over all connections of a Guard. A
	// frame that finds no room is not read until there is some.
	maxReceiving = 64 << 20

	// maxReadAhead is how many bytes are read while one and the same write is stuck. Without a bound a peer that
	// sends and never reads fills the queues of its streams, 64 messages each.
	maxReadAhead = 1 << 20
)

// GuardOptions configure a Guard. The zero value is usable.
type GuardOptions struct {
	// MaxCalls is the number of calls that may be open on one connection. Default: 256.
	//
	// At the limit the connection is not read until a call ends. If a call is open whose client still sends messages,
	// that would deadlock it, so a further call is answered with ResourceExhausted instead; likewise if no call has
	// ended for IOTimeout, which also finds out peers that have gone.
	MaxCalls int

	// IOTimeout is how long a peer may take to send the rest of a frame or to take what is written to it before its
	// connection is closed. It is kept to within a quarter of itself; time during which the Guard or ttrpc does not
	// read does not count. Between frames a peer may be silent for ever. Default: 30 s.
	IOTimeout time.Duration

	// Services describes services that are registered with the server but not in protoregistry.GlobalFiles, so that
	// their streams are known. What is known from neither is taken for unary, and a peer that sends Data to it is
	// refused.
	Services map[string]*ttrpc.ServiceDesc
}

// Guard protects a stock ttrpc.Server from its peers: it judges each frame before ttrpc sees it. All connections of a
// server share one Guard. It needs no closing.
//
// A Guard holds at most 64 MiB for the frames of 32 KiB and more that arrive, and for each connection, in addition to
// what ttrpc itself needs:
//   - idle: under 1.5 KB, no goroutine and no buffer;
//   - output: 256 KiB that are queued, and as much again that is being written;
//   - input: as many bytes as ttrpc reads at once, 4 KiB, for what was read and may not be passed on yet;
//   - open calls: about 32 bytes each.
//
// Once a write is stuck, at most 1 MiB and one frame more are read until the peer takes it.
//
// ttrpc and the handlers hold up to MaxCalls requests and as many responses of up to 4 MiB each; a stream whose handler
// does not receive holds up to 65 messages. What a handler takes from its stream cannot be seen on the wire, so
// handlers that receive more slowly than peers send are bounded by MaxCalls alone. ttrpc ends such a stream when it is
// full, and delays its connection by a second before it does.
type Guard struct {
	options   GuardOptions
	methods   methods
	receiving *budget
}

// NewGuard returns a Guard. It knows the services that are linked into the program by then.
func NewGuard(o GuardOptions) *Guard {
	if o.MaxCalls <= 0 {
		o.MaxCalls = DefaultMaxCalls
	}
	return &Guard{options: o, methods: newMethods(o.Services), receiving: newBudget(maxReceiving)}
}

// Wrap returns a GuardedConn over c, which it owns from then on.
func (g *Guard) Wrap(c net.Conn) *GuardedConn {
	conn := &GuardedConn{conn: c, guard: g, judge: judge{maxCalls: g.options.MaxCalls}}
	conn.ctx, conn.end = context.WithCancel(context.Background())
	conn.out.init(&conn.mu, g.options.IOTimeout, conn.writeLost, conn.tick)
	conn.out.conn = c
	return conn
}

// GuardedConn is a server's connection whose input is judged and whose output is gathered, for one ttrpc.Server.
//
// It is refused, which is to say that Read returns io.EOF, if the peer sends
//   - a frame longer than 4 MiB or of a type that clients do not send;
//   - a request with an even stream id or one that is not higher than all before, or that is not a valid ttrpc.Request;
//   - data for an id that is higher than all before, or for an open call that takes none: one that is not known to take
//     messages from the client, or whose client has closed its side;
//   - data that closes the client's side or is marked as no data and has a payload.
//
// Data for a call that has ended is a race that no peer can avoid, and is dropped.
type GuardedConn struct {
	noDeadline
	conn  net.Conn
	guard *Guard
	ctx   context.Context // ends with the connection
	end   func()          // ends ctx

	readMu  sync.Mutex    // held by Read; taken before mu
	input   input         // guarded by readMu, as is request
	request requestParser // reads the current frame if it is a request

	mu      sync.Mutex
	cut     cutter
	out     writer
	judge   judge
	drained chan struct{}
	reason  error // why the peer was refused
	share   int   // bytes of guard.receiving that the current frame holds
	inFrame bool  // the reader waits for the rest of a frame
	unread  stall // of the current frame
	atLimit bool  // the reader waits for a call to end
	full    stall // of that
}

var _ net.Conn = (*GuardedConn)(nil)

// LocalAddr returns the local address of the connection underneath.
func (c *GuardedConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the remote address of the connection underneath.
func (c *GuardedConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Calls returns the number of open calls: requests that were passed on to ttrpc and that their handlers have not
// answered yet.
func (c *GuardedConn) Calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.judge.calls)
}

// Err returns why the peer was refused, or nil if it was not.
func (c *GuardedConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// refuse notes why the peer is refused. mu is held.
func (c *GuardedConn) refuse(reason error) {
	if c.reason == nil {
		c.reason = reason
	}
}

// Drain answers each request that comes from now on with Unavailable, while open calls go on. The channel it returns is
// closed when no call is open and all output has been handed to the connection underneath, or the connection has ended.
// It stays closed, and the connection open: a peer may still be sending requests, and gets answers until Close.
func (c *GuardedConn) Drain() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.draining = true
	c.out.changed.Broadcast()
	if c.drained == nil {
		c.drained = make(chan struct{})
		go c.awaitDrained()
	}
	return c.drained
}

func (c *GuardedConn) awaitDrained() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.out.ended() == nil && (len(c.judge.calls) > 0 || c.out.pending() || c.cut.part != nil) {
		c.out.changed.Wait()
	}
	close(c.drained)
}

// Write writes b or queues a copy of it. An error that befalls queued bytes later ends the connection and is returned
// by the next Write. Write waits while 256 KiB are queued.
func (c *GuardedConn) Write(b []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.ended(); err != nil {
		return 0, err
	}
	return c.cut.each(b, c.send)
}

// send writes f and takes note of the call that it ends. mu is held.
func (c *GuardedConn) send(f frame) error {
	c.out.busy = len(c.judge.calls) > manyCalls
	if c.judge.answered(&f) {
		c.out.changed.Broadcast()
	}
	_, err := c.out.write(&f)
	return err
}

// Close refuses further writes, gives the peer up to a second (or the IOTimeout, if shorter) to take what is queued,
// and closes the connection underneath.
func (c *GuardedConn) Close() error {
	c.mu.Lock()
	c.end()
	c.out.finish()
	c.mu.Unlock()
	c.giveShare() // ttrpc need not read again
	return c.conn.Close()
}

// writeLost is told that nothing more can be written. mu is held.
func (c *GuardedConn) writeLost() {
	c.end()
	c.out.queue.free()
	c.out.queue = nil
	go c.conn.Close() // closing can block; why the connection has ended is known already
}

// tick counts the time of a peer that does not finish a frame or takes nothing, and of one that waits for a call to
// end.
func (c *GuardedConn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.armed = false
	if c.out.ended() != nil {
		return
	}
	if c.full.tick(c.atLimit) {
		c.judge.overdue = true
		c.out.changed.Broadcast()
	}
	err := c.out.check()
	if c.unread.tick(c.inFrame) {
		err = fmt.Errorf("read from peer: frame not finished for %v: %w", c.out.timeout, os.ErrDeadlineExceeded)
	}
	switch {
	case err != nil:
		c.refuse(err)
		c.out.fail(err)
	case c.atLimit || c.inFrame || c.out.writing:
		c.out.arm()
	case len(c.judge.calls) == 0:
		c.judge.calls = nil // a map keeps the room of its busiest time
	}
}
