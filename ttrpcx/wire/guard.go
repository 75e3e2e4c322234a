package wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
)

const (
	// DefaultMaxCalls is the number of calls that may run on one connection if the options do not say.
	DefaultMaxCalls = 256

	// parkedCost is what a parked call takes apart from its messages, in bytes.
	parkedCost = 512

	// maxSkipped is the length in bytes of the longest payload that is read to answer its call with ResourceExhausted.
	// A longer one is not of ttrpc: HTTP and TLS look like that.
	maxSkipped = 256 << 20

	// memoryTimeout is how long a frame waits for memory before it is refused.
	memoryTimeout = 1500 * time.Millisecond

	// maxPause is the longest pause before it looks again whether there is memory.
	maxPause = 50 * time.Millisecond

	// directFrame is the length in bytes, header included, above which ttrpc gets a frame as it arrives. ttrpc takes a
	// buffer for all of a frame as soon as it has the header, from a pool that may give it one of 4 MiB. So it gets
	// shorter frames when they are whole, which costs a copy.
	directFrame = 64 << 10

	// stallTime and stallBytes say who loses memory for which somebody waits: a peer that has brought fewer bytes of a
	// frame in that time.
	stallTime  = time.Second
	stallBytes = 64 << 10
)

// GuardOptions configure a Guard. The zero value is usable.
type GuardOptions struct {
	// MaxCalls is the number of calls that may run on one connection. Default: 256.
	//
	// Further calls wait, in order, in the Guard's memory. They are answered with ResourceExhausted if there is no room
	// for them, or if no call has ended for IOTimeout, which also finds out peers that have gone.
	MaxCalls int

	// MaxUserCalls is the number of handlers that may run for one user, on all connections of the user. Only handlers
	// inside of interceptor.Memory count. Default: 4096.
	MaxUserCalls int

	// MaxMemory is how many bytes the calls of all users may hold: see Guard. Default: 128 MiB.
	MaxMemory int

	// IOTimeout is how long a peer may take to send the rest of a frame or to take what is written to it before its
	// connection is closed. It is kept to within a quarter of itself; time during which the Guard or ttrpc does not
	// read does not count. Between frames a peer may be silent for ever. Default: 30 s.
	IOTimeout time.Duration

	// Services describes services that are registered with the server but not in protoregistry.GlobalFiles, so that
	// their streams are known. What is known from neither is taken for unary, and a peer that sends Data to it is
	// refused.
	Services map[string]*ttrpc.ServiceDesc
}

// Guard protects a stock ttrpc.Server from its peers: it judges each frame before ttrpc sees it, and counts what peers
// make the server hold. All connections of a server share one Guard. It needs no closing.
//
// MaxMemory bounds what is counted: frames that are arriving, by the length that they announce; requests, from their
// header until they are answered; answers that wait for the peer to take them; and what package interceptor's Memory
// and Sendable see, which is messages that wait for their handler, answers that wait for ttrpc, and what handlers
// reserve. The numbers are estimates of the memory that a message takes in the server, all its copies included. One
// user may hold as much as is left for all others, and twice as much with answers. A frame that finds no room waits for
// 1.5 s. Meanwhile peers that bring less than 64 KiB of a frame in a second lose their connections. Then its call is
// answered with ResourceExhausted.
//
// Not counted is what a connection takes by itself, even if it is idle: about 1.5 KB here, and 8 KiB in ttrpc.
type Guard struct {
	options GuardOptions
	methods methods
	budget  *budget

	largest atomic.Int64 // bytes of a frame that ttrpc has had

	mu        sync.Mutex
	receiving map[*GuardedConn]struct{} // those that hold memory for a frame that is arriving
	evicted   time.Duration             // clock when stalled ones were last looked for
}

// NewGuard returns a Guard. It knows the services that are linked into the program by then.
func NewGuard(o GuardOptions) *Guard {
	o.MaxCalls = orDefault(o.MaxCalls, DefaultMaxCalls)
	b := &budget{
		limit:    int64(orDefault(o.MaxMemory, DefaultMaxMemory)),
		maxCalls: int64(orDefault(o.MaxUserCalls, DefaultMaxUserCalls)),
		users:    make(map[string]*user),
	}
	return &Guard{
		options: o, methods: newMethods(o.Services), budget: b,
		receiving: make(map[*GuardedConn]struct{}), evicted: clock(),
	}
}

func orDefault(n, byDefault int) int {
	if n <= 0 {
		return byDefault
	}
	return n
}

// Wrap returns a GuardedConn over c, which it owns from then on. user is the name under which the peer's memory and
// calls count.
func (g *Guard) Wrap(c net.Conn, user string) *GuardedConn {
	conn := &GuardedConn{
		conn: c, guard: g, judge: judge{maxCalls: g.options.MaxCalls}, account: g.budget.open(user),
	}
	conn.ctx, conn.end = context.WithCancel(context.Background())
	conn.out.init(&conn.mu, g.options.IOTimeout, conn.writeLost, conn.tick)
	conn.out.wrote = conn.wrote
	conn.out.conn = c
	return conn
}

// evict closes the connections of peers that hold memory and bring nothing.
func (g *Guard) evict() {
	g.mu.Lock()
	now := clock()
	var holders []*GuardedConn
	if now-g.evicted >= stallTime/10 {
		g.evicted = now
		holders = slices.Collect(maps.Keys(g.receiving))
	}
	g.mu.Unlock()
	for _, c := range holders {
		c.loseIfStalled(now)
	}
}

// GuardedConn is a server's connection whose input is judged and whose output is gathered, for one ttrpc.Server.
//
// It is refused, which is to say that Read returns io.EOF, if the peer sends
//   - a frame longer than 256 MiB or of a type that clients do not send;
//   - a request with an even stream id or one that is not higher than all before, or that is not a valid ttrpc.Request;
//     but one with stream id 0 is answered with InvalidArgument, as in ttrpc, because clients ask so whether it lives;
//   - data for an id that is higher than all before, or for an open call that takes none: one that is not known to take
//     messages from the client, or whose client has closed its side;
//   - data that closes the client's side or is marked as no data and has a payload.
//
// Data for a call that has ended is a race that no peer can avoid, and is dropped. A frame over 4 MiB is dropped, and
// its call answered with ResourceExhausted, as is a request whose metadata is over 8 KiB.
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

	account *Account // of bytes below, and of judge.calls
	ended   bool     // nothing more is counted in account
	share   int64    // that the current frame holds until ttrpc has dealt with it
	spent   int64    // the same, of those before it
	ahead   int64    // that were read during the write in progress
	output  int64    // that are queued

	parked  map[uint32][]byte // the frames of parked calls
	order   []uint32          // in which they are unparked; those that are not in parked were refused
	reading bool              // the reader waits for bytes while calls are parked
	woken   bool              // it is to look at parked
	full    stall             // of the parked calls

	inFrame bool          // the reader waits for the rest of a frame
	unread  stall         // of the current frame
	arrived int           // bytes of all frames
	mark    int           // arrived at markAt
	markAt  time.Duration // clock
}

var _ net.Conn = (*GuardedConn)(nil)

// LocalAddr returns the local address of the connection underneath.
func (c *GuardedConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the remote address of the connection underneath.
func (c *GuardedConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Account returns the account of the connection, for the contexts of its handlers.
func (c *GuardedConn) Account() *Account { return c.account }

// Calls returns the number of open calls: requests that were passed on to ttrpc and that their handlers have not
// answered yet.
func (c *GuardedConn) Calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.running()
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
	c.refuseParked(errShuttingDown)
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
	c.out.calls = c.judge.running()
	call, ends := c.judge.answered(&f)
	if ends {
		c.out.changed.Broadcast()
		c.wake()
	}
	if f.Type == TypeResponse && f.Length >= largeAnswer && !f.hasStatus() && !c.ended {
		c.account.answered(int64(f.Length))
	}
	if call.invalid != nil {
		f = refusalOf(f.StreamID, call.invalid)
	}
	var large int64
	if f.size() >= largeFrame {
		large = int64(f.size()) * answerCopies
		c.hold(large)
	}
	_, err := c.out.write(&f)
	c.hold(-large - call.cost)
	c.countQueue()
	return err
}

// hold counts n bytes more, or fewer if n is negative. mu is held.
func (c *GuardedConn) hold(n int64) {
	if !c.ended && n != 0 {
		c.account.release(-n)
	}
}

// countQueue counts what the queue holds, roughly, because it is called for each frame. mu is held.
func (c *GuardedConn) countQueue() {
	const step = 16 << 10
	if n := int64(len(c.out.queue.bytes())) / step * step; n != c.output {
		c.hold(n - c.output)
		c.output = n
	}
}

// wrote is told that a write has ended. mu is held.
func (c *GuardedConn) wrote() {
	c.hold(-c.ahead)
	c.ahead = 0
	c.countQueue()
}

// CloseWrite refuses further writes and gives the peer up to a second (or the IOTimeout, if shorter) to take what is
// queued. It leaves the connection underneath open.
func (c *GuardedConn) CloseWrite() {
	c.mu.Lock()
	c.end()
	c.out.finish()
	if !c.ended {
		c.ended = true // ttrpc need not read or write again
		c.account.unref()
	}
	c.parked, c.order = nil, nil
	c.mu.Unlock()
	c.guard.received(c)
}

// Close does what CloseWrite does, and closes the connection underneath.
func (c *GuardedConn) Close() error {
	c.CloseWrite()
	return c.conn.Close()
}

// writeLost is told that nothing more can be written. mu is held.
func (c *GuardedConn) writeLost() {
	c.end()
	c.out.queue.free()
	c.out.queue = nil
	go c.conn.Close() // closing can block; why the connection has ended is known already
}

// tick counts the time of a peer that does not finish a frame or takes nothing, and of calls that are parked.
func (c *GuardedConn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.armed = false
	if c.out.ended() != nil {
		return
	}
	if c.full.tick(c.judge.parked > 0) {
		c.judge.overdue, c.full = true, 0
		c.refuseParked(errTooManyCalls)
	}
	err := c.out.check()
	if c.unread.tick(c.inFrame) {
		err = fmt.Errorf("read from peer: frame not finished for %v: %w", c.out.timeout, os.ErrDeadlineExceeded)
	}
	switch {
	case err != nil:
		c.lose(err)
	case c.judge.parked > 0 || c.inFrame || c.out.writing:
		c.out.arm()
	case len(c.judge.calls) == 0:
		c.judge.calls = nil // a map keeps the room of its busiest time
	}
}

// lose ends the connection because of what its peer does not do. mu is held.
func (c *GuardedConn) lose(err error) {
	c.refuse(err)
	c.out.fail(err)
}

// loseIfStalled ends the connection if its peer brings too little of the frame for which it holds memory.
func (c *GuardedConn) loseIfStalled(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.inFrame || now-c.markAt < stallTime || c.out.ended() != nil:
	case c.arrived-c.mark < stallBytes:
		c.lose(errors.New("read from peer: frame not finished while others wait for its memory"))
	default:
		c.mark, c.markAt = c.arrived, now
	}
}
