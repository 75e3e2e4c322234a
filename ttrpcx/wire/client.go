package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// maxWaiting bounds what waits for a connection to be made, in bytes. It has room for any one frame that is legal.
const maxWaiting = HeaderSize + MaxPayload

// maxBlocked is how long a call waits in Write for a server that takes nothing.
const maxBlocked = 500 * time.Millisecond

// ClientOptions configure a ClientConn. The zero value is usable.
type ClientOptions struct {
	// Logger is told of every connection that is lost, of every failed attempt and of every new connection. Default:
	// slog.Default().
	Logger *slog.Logger

	// BackoffMax bounds the pause between attempts to connect. The first pause is 50 ms, each further one is 1.6 times
	// as long, and each is up to 20 % shorter or longer at random. Default: 5 s.
	BackoffMax time.Duration

	// IOTimeout is how long the server may take nothing of what is written before its connection is closed. It is kept
	// to within a quarter of itself. Default: 30 s.
	IOTimeout time.Duration

	// KeepAlive is for servers that can go without closing their connections, as when a machine loses power. While a
	// call is open and nothing has arrived for this long, a request with stream id 0 is sent, which every server
	// answers. If nothing arrives for as long again, the connection is lost. Both times are kept to within a quarter.
	// Choose more than it takes to send the longest message. Default: off, because a kernel closes the unix sockets of
	// a process, and because a server that a debugger has stopped is as silent as one that has gone.
	KeepAlive time.Duration

	// WaitForReady lets a call that finds no server wait until there is one, for as long as the call's deadline allows
	// and if need be forever. A call that is cancelled without having a deadline is sent nevertheless, because ttrpc
	// tells nobody of a cancelled call. Default: such a call fails at once.
	WaitForReady bool
}

// ClientConn is the client's end of a connection that outlives its server. Hand it to ttrpc.NewClient in place of a
// plain connection: the client, and what is generated on top of it, then stays usable when the server goes away and
// comes back, where it would otherwise fail every further call. It also gathers the frames that concurrent calls write
// into fewer system calls, and it understands the method names that StreamMethod makes.
//
// A call of which the whole request was given to the kernel when the connection is lost ends with code Unavailable and
// a message which says that the call may have run, or that the server is shutting down, if the server's Guard has
// refused an earlier call for that. Such a call is never sent again. Any other request cannot have run; it goes to the
// next connection as if it had been made a moment later, with what is left of its timeout, unless the server has
// answered it already. A call that reaches no server ends with code Unavailable and a message which says that it was
// not sent. Messages that a stream still sends after its connection was lost are dropped, and the next receive tells
// why.
//
// While the server takes nothing, a request or message waits in Write for half a second and is queued then, so that its
// call can end at its deadline. If 4 MiB are queued, a message waits, and a request is answered as not sent once the
// server has taken nothing for 2.5 s. Over TLS, a request that is written when nothing else is queued waits until the
// server takes it or IOTimeout is over.
//
// ttrpc tells a connection nothing of the end of a call but the server's answer. If there is none, a call with a
// deadline is forgotten, and answered with DeadlineExceeded, at the earliest an IOTimeout after the deadline. Any other
// stays: a bit, or 40 bytes if the server has answered all calls that were made before and after it.
//
// A lost connection is replaced when a call needs it and not before. A connection that is lost before its first answer
// and within BackoffMax of being made counts as a failed attempt, so that a server which only hangs up is not hammered.
//
// Idle, it keeps no goroutine and no buffer: the connection is read in the goroutine that calls Read and written in the
// one that calls Write, or in another while frames are queued. Read must be called all the time, as ttrpc.Client does,
// because that is how a lost connection is noticed. The methods may be called from several goroutines.
type ClientConn struct {
	noDeadline
	dial    func(context.Context) (net.Conn, error)
	options ClientOptions
	ctx     context.Context // of every attempt but the first; ends with Close
	cancel  context.CancelFunc

	rmu    sync.Mutex // held by Read; taken before mu
	reader reader     // guarded by rmu

	mu      sync.Mutex
	cut     cutter
	out     writer      // out.conn is nil while there is no connection, and out.queue has what waits for one
	since   time.Time   // when out.conn was made
	addr    [2]net.Addr // local and remote of the latest connection
	calls   callSet     // that are open: neither the server nor this end has answered them
	answers []byte      // frames that no server sent
	reading bool        // the reader waits for bytes from the server, and may take answers meanwhile
	woken   bool        // it was told that there are some
	sending int         // calls of out.write
	dialing bool        // redial runs
	alive   keepAlive
	refused uint32 // the first call on the connection that the server has refused because it stops
	backoff backoff
}

var _ net.Conn = (*ClientConn)(nil)

// NewClientConn dials for the first time and returns that attempt's error as it is, so that a wrong address shows at
// the start. With WaitForReady it tries again until ctx ends. Once NewClientConn has returned, only the values of ctx
// matter.
//
// dial is called for every new connection, never twice at a time, with a context that ends after 20 s, when the
// ClientConn is closed and when dial returns. It must return either a connection, which the ClientConn then owns, or an
// error. Whatever else wraps the connection, such as TLS, belongs into dial.
func NewClientConn(
	ctx context.Context, dial func(context.Context) (net.Conn, error), o ClientOptions,
) (*ClientConn, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.BackoffMax <= 0 {
		o.BackoffMax = defaultBackoffMax
	}
	c := &ClientConn{dial: dial, options: o, backoff: backoff{base: backoffBase, max: o.BackoffMax}}
	c.alive.interval = o.KeepAlive
	c.out.init(&c.mu, o.IOTimeout, c.writeLost, c.tick)
	c.out.period = min(c.out.period, maxBlocked/2) // at the second tick in a row
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for {
		conn, err := c.attempt(ctx)
		if err == nil {
			c.adopt(conn)
			return c, nil
		}
		if !o.WaitForReady {
			c.cancel()
			return nil, err
		}
		if c.backoff.err != nil && errors.Is(err, context.DeadlineExceeded) {
			err = c.backoff.err // says more
		}
		c.backoff.failed(err)
		if !sleep(ctx, c.backoff.pause()) {
			c.cancel()
			return nil, fmt.Errorf("wait for the server: %w: %w", context.Cause(ctx), err)
		}
	}
}

// Write takes whole frames or parts of them. It blocks only while a connection takes frames slowly, and never for a
// connection to be made. It returns net.ErrClosed once the ClientConn is closed, and before that an error only for a
// frame over MaxPayload: ttrpc.Client can never write again after an error. What cannot be sent is answered by Read.
func (c *ClientConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closed {
		return 0, net.ErrClosed
	}
	return c.cut.each(p, c.send)
}

// send writes f, lets it wait for a connection or drops it. mu is held.
func (c *ClientConn) send(f frame) error {
	if f.Type == TypeRequest {
		f.made = clock()
		expand(&f)
		c.open(&f) // before the write, because the answer can be read before the write returns
		c.watch()
	} else if !c.calls.has(f.StreamID) {
		return nil
	}
	c.out.calls = c.calls.n
	c.sending++
	switch n, err := c.out.write(&f); {
	case errors.Is(err, errStuck):
		c.notSent(f.StreamID, err)
	case err != nil && n < f.size():
		c.wait(&f)
	}
	c.sending--
	c.out.changed.Broadcast()
	return nil
}

// open notes that the call of f, a request, is open, and ends calls whose deadlines have passed long ago. Their callers
// have left, or wait for a server that will not answer. mu is held.
func (c *ClientConn) open(f *frame) {
	until := forever
	if timeout := f.timeout(); timeout != 0 && timeout < forever/4 {
		until = f.made + timeout + c.out.timeout
	}
	c.calls.add(f.StreamID, until)
	for _, id := range c.calls.expired(f.made) {
		c.answer(id, codes.DeadlineExceeded, "the server has not answered")
	}
}

// wait lets f wait for a connection, or answers its call if it must not wait. mu is held.
func (c *ClientConn) wait(f *frame) {
	switch {
	case c.out.closed, !c.calls.has(f.StreamID): // by now
	case f.Type == TypeRequest && c.out.conn == nil && !c.options.WaitForReady && c.backoff.pause() > 0:
		c.notSent(f.StreamID, c.backoff.err)
	case len(c.out.queue.bytes())+f.size() <= maxWaiting:
		c.out.push(f)
		c.wake()
	case f.Type == TypeRequest || c.prune()[f.StreamID]:
		c.notSent(f.StreamID, errors.New("too much waits for a connection to the server"))
		c.prune()
	}
}

// prune drops from the queue the frames of calls that were answered, answers the calls whose deadline has passed, and
// takes the time that the others have waited off their timeouts. It returns the calls whose requests stay. mu is held.
func (c *ClientConn) prune() map[uint32]bool {
	ids := make(map[uint32]bool)
	if c.out.queue == nil {
		return ids
	}
	now := clock()
	c.out.queue.filter(func(f *frame) bool {
		switch {
		case !c.calls.has(f.StreamID):
			return false
		case f.Type != TypeRequest:
			return ids[f.StreamID] // else the request was sent, and lost
		case !age(f, now):
			c.notSent(f.StreamID, errors.New("no connection to the server before its deadline"))
			return false
		}
		ids[f.StreamID] = true
		return true
	})
	return ids
}

// age takes the time since f, a request, was made off its timeout. It reports whether there is some left.
func age(f *frame, now time.Duration) bool {
	var r ttrpc.Request
	if proto.Unmarshal(f.payload(), &r) != nil || r.TimeoutNano == 0 {
		return true
	}
	r.TimeoutNano -= int64(now - f.made)
	f.setRequest(&r)
	f.made = now
	return r.TimeoutNano > 0
}

// notSent answers a call that reached no server. mu is held.
func (c *ClientConn) notSent(id uint32, err error) {
	c.answer(id, codes.Unavailable, fmt.Sprintf("the call was not sent: %v", err))
}

// answer ends a call. mu is held.
func (c *ClientConn) answer(id uint32, code codes.Code, message string) {
	c.calls.remove(id)
	c.answers = append(c.answers, refusal(id, code, message)...)
	c.out.changed.Broadcast()
	c.interrupt()
}

// writeLost is told that nothing more can be written to the connection. What the server sent before it went away is
// still read, for a while: a server that stops has answered all calls that it took. mu is held.
func (c *ClientConn) writeLost() {
	if conn := c.out.conn; conn.SetReadDeadline(time.Now().Add(linger)) != nil {
		go conn.Close() // closing can block; that the connection is gone is known already
	}
}

// tick gives up a connection to a server that takes nothing.
func (c *ClientConn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.armed = false
	if c.out.err != nil {
		return
	}
	if err := c.out.check(); err != nil {
		c.out.fail(err)
		go c.out.conn.Close() // as above
	} else if c.out.writing {
		if c.out.blocked > 1 {
			c.out.release()
		}
		c.out.arm()
	}
}

// lose ends the connection after a read from it has failed, and answers the calls that were sent on it. Only Read calls
// it, so that whatever the server answered before it went away is read first. proven means that there was an answer.
func (c *ClientConn) lose(conn net.Conn, err error, proven bool) {
	_ = conn.Close() // why it ends is known
	c.mu.Lock()
	if c.out.err == nil {
		c.out.err = err
	} else if errors.Is(c.out.err, os.ErrDeadlineExceeded) {
		err = c.out.err // we closed it, and that is why
	}
	c.out.changed.Broadcast()
	for c.sending > 0 || c.out.flushing {
		c.out.changed.Wait() // only then is known what was sent
	}
	if c.out.closed {
		c.mu.Unlock()
		return
	}
	c.out.conn = nil
	hint, lost := "", 0
	if !proven {
		hint = " before its first answer, as when it refuses this client, which its log would tell"
	}
	waiting := c.prune()
	for _, id := range c.calls.all() {
		switch {
		case waiting[id]:
		case id > c.refused:
			c.answer(id, codes.Unavailable, "server is shutting down") // as it would have said
		default:
			c.answer(id, codes.Unavailable,
				fmt.Sprintf("the connection to the server was lost%s (%v); the call may have run", hint, err))
			lost++
		}
	}
	if proven || time.Since(c.since) >= c.options.BackoffMax {
		c.backoff.succeeded()
	} else {
		c.failed(fmt.Errorf("connection lost at once: %w", err))
	}
	c.wake()
	c.mu.Unlock()
	c.options.Logger.Warn("connection to the server lost", "address", conn.RemoteAddr(), "error", err, "calls", lost)
}

// wake starts an attempt to connect if something waits for it. mu is held.
func (c *ClientConn) wake() {
	if c.out.conn == nil && len(c.out.queue.bytes()) > 0 && !c.dialing && !c.out.closed {
		c.dialing = true
		go c.redial()
	}
}

// redial connects and sends what waits, or gives up when nothing waits any more.
func (c *ClientConn) redial() {
	for {
		c.mu.Lock()
		c.prune()
		if len(c.out.queue.bytes()) == 0 || c.out.closed {
			c.dialing = false
			c.mu.Unlock()
			return
		}
		pause := c.backoff.pause()
		c.mu.Unlock()
		if !sleep(c.ctx, pause) {
			continue
		}
		conn, err := c.attempt(c.ctx)
		if err == nil {
			c.options.Logger.Info("connection to the server made", "address", conn.RemoteAddr())
			c.connected(conn)
			return
		}
		c.mu.Lock()
		c.failed(err)
		attempts := c.backoff.failures
		c.mu.Unlock()
		if c.ctx.Err() == nil {
			c.options.Logger.Warn("connection to the server not made", "error", err, "attempts", attempts)
		}
	}
}

// attempt dials once.
func (c *ClientConn) attempt(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return c.dial(ctx)
}

// sleep waits for d and reports whether ctx was still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	timer, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-timer.Done()
	return ctx.Err() == nil
}

// failed puts off the next attempt, and answers what waits if it must not wait that long. mu is held.
func (c *ClientConn) failed(err error) {
	c.backoff.failed(err)
	if !c.options.WaitForReady {
		for id := range c.prune() {
			c.notSent(id, err)
		}
		c.out.queue.free()
		c.out.queue = nil
	}
}

// connected sends on conn what has waited for it.
func (c *ClientConn) connected(conn net.Conn) {
	c.mu.Lock()
	c.dialing = false
	closed := c.out.closed
	if !closed {
		c.prune()
		c.adopt(conn)
		c.out.startFlush()
	}
	c.mu.Unlock()
	if closed {
		_ = conn.Close() // nothing was sent on it
	}
}

// adopt makes conn the connection. mu is held.
func (c *ClientConn) adopt(conn net.Conn) {
	c.out.conn, c.out.err, c.out.taken, c.since = conn, nil, 0, time.Now()
	c.out.progress()
	c.alive.quiet, c.alive.asked, c.refused = 0, 0, math.MaxUint32
	c.watch()
	c.addr = [2]net.Addr{conn.LocalAddr(), conn.RemoteAddr()}
	c.out.changed.Broadcast()
}

// Close closes the connection, ends an attempt to make one and drops what waits. Before, it gives the server up to a
// second to take what is queued. It does not wait for dial to return; a connection that dial returns later is closed.
// Read and Write return net.ErrClosed from then on, of which ttrpc.Client makes ttrpc.ErrClosed for every open call.
// Further calls of Close do nothing.
func (c *ClientConn) Close() error {
	c.mu.Lock()
	if c.out.closed {
		c.mu.Unlock()
		return nil
	}
	c.out.finish()
	conn := c.out.conn
	c.mu.Unlock()
	c.cancel()
	if conn == nil {
		return nil
	}
	return conn.Close()
}

// LocalAddr returns the local address of the latest connection.
func (c *ClientConn) LocalAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr[0]
}

// RemoteAddr returns the remote address of the latest connection.
func (c *ClientConn) RemoteAddr() net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr[1]
}
