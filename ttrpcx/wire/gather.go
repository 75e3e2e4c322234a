package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	// defaultIOTimeout is how long a peer may take over one frame if the options do not say.
	defaultIOTimeout = 30 * time.Second

	// maxLinger bounds how long Close waits for a peer to take what is queued for it.
	maxLinger = time.Second

	// maxQueued bounds the bytes that wait for a running write; whoever has more to write waits as well.
	maxQueued = 256 << 10

	// largeWrite is the length in bytes from which copying into the queue costs more than waiting for the running
	// write.
	largeWrite = 32 << 10

	// crowd is the number of other open calls from which frames are gathered, and the flusher first lets the goroutines
	// run that may add theirs. With fewer, gathering costs more than the system calls that it saves.
	crowd = 4

	// firstWrite is the length of the first piece in which ttrpc's bufio.Writer passes on a frame that is too long for
	// it; the rest always follows at once.
	firstWrite = 4096

	// ticksPerTimeout is how often in an IOTimeout the connection is looked at. A peer is cut off at most one tick
	// late.
	ticksPerTimeout = 4
)

// side is what the two kinds of connection add to gather. Its methods are called with gather.mu held.
type side interface {
	// wrote is told each header that is written and the bytes behind it in the same Write. It keeps gather.others.
	wrote(h Header, rest []byte)

	// check is called at each tick. watch asks for another tick; err ends the connection.
	check() (watch bool, err error)

	// progressed is told that a write has ended or that the connection has.
	progressed()

	// readsAnswers reports whether what the peer has sent is wanted even if nothing can be written to it any more.
	readsAnswers() bool

	// cutOff is told why a peer that has used up its time is about to be cut off.
	cutOff(err error)
}

// gather is the write half of a connection. It writes a frame at once if few other calls are open, and else queues
// it: then more frames are about to follow, and one system call can take them all. ttrpc issues its writes one after
// another from one goroutine or under one lock, so writes never overlap of themselves: only the count of open calls
// tells.
//
// A goroutine and a buffer exist while something is queued, and none while the connection is idle.
type gather struct {
	inner   net.Conn
	side    side
	timeout time.Duration
	flushFn func() // flush as a value made once, because a go statement with a receiver allocates

	mu       sync.Mutex
	cond     sync.Cond // anything below has changed
	track    tracker   // of the frames given to Write
	others   int       // open calls besides the one whose frame was written last
	raw      bool      // what is written are not frames: gather nothing
	timed    bool      // a write deadline is set: each Write waits for its own result
	writing  bool      // someone is in inner.Write, without mu
	flushing bool      // the flusher runs
	writes   uint64    // inner writes that have ended
	queue    *buffer   // what the flusher takes next; nil if there is nothing
	injected *buffer   // whole frames of our own that wait for the end of the frame in progress
	vector   net.Buffers
	pair     [2][]byte // backs vector
	closed   bool      // by Close
	err      error     // why writing is over, if not by Close
	quit     chan struct{}

	armed   bool
	timer   *time.Timer
	written stall
}

func (g *gather) init(inner net.Conn, timeout time.Duration, s side) {
	if timeout <= 0 {
		timeout = defaultIOTimeout
	}
	g.inner, g.timeout, g.side = inner, timeout, s
	g.cond.L = &g.mu
	g.flushFn = g.flush
	g.quit = make(chan struct{})
}

// LocalAddr returns the local address of the connection underneath.
func (g *gather) LocalAddr() net.Addr { return g.inner.LocalAddr() }

// RemoteAddr returns the remote address of the connection underneath.
func (g *gather) RemoteAddr() net.Addr { return g.inner.RemoteAddr() }

// SetDeadline sets the read and the write deadline. See SetWriteDeadline for what the latter costs.
func (g *gather) SetDeadline(t time.Time) error {
	return errors.Join(g.SetReadDeadline(t), g.SetWriteDeadline(t))
}

// SetReadDeadline sets the read deadline of the connection underneath.
func (g *gather) SetReadDeadline(t time.Time) error { return g.inner.SetReadDeadline(t) }

// SetWriteDeadline sets the write deadline of the connection underneath. While one is set nothing is gathered: each
// Write returns when its bytes are out or the deadline has passed. The zero time lifts it.
func (g *gather) SetWriteDeadline(t time.Time) error {
	err := g.inner.SetWriteDeadline(t)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timed = !t.IsZero()
	if g.queue != nil && g.ended() == nil {
		g.startFlush()
	}
	return err
}

// Write writes b or queues a copy of it. An error that befalls queued bytes later ends the connection and is returned by
// the next Write. Write waits while 256 KiB are queued.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.raw || g.timed || len(b) >= largeWrite
	for g.ended() == nil && g.mustWait(now, len(b)) {
		g.startFlush()
		g.cond.Wait()
	}
	if err := g.ended(); err != nil {
		return 0, err
	}
	if len(b) == 0 {
		return 0, nil
	}

	begun := g.account(b)
	switch {
	case now:
	case begun:
		g.push(b)
		return len(b), nil
	case g.writing || g.flushing || g.others >= crowd:
		g.push(b)
		g.pushInjected()
		g.startFlush()
		return len(b), nil
	}
	n, err := g.writeNow(b)
	g.pushInjected()
	if g.queue != nil && err == nil {
		g.startFlush()
	}
	return n, err
}

// mustWait reports whether n bytes have to wait: for the write in progress if they are to be written now, else for
// room.
func (g *gather) mustWait(now bool, n int) bool {
	if now {
		return g.writing
	}
	return g.queue != nil && len(g.queue.b)+n > maxQueued
}

// account follows the frames in b. It reports whether b is the first piece of a frame whose rest the caller is about to
// write, so that it would be a waste to send the piece by itself.
func (g *gather) account(b []byte) (begun bool) {
	if g.raw {
		return false
	}
	begun = len(b) == firstWrite && g.track.atBoundary()
	for rest := b; ; {
		h, r, ok := g.track.next(rest)
		if !ok {
			break
		}
		if h.Type < TypeRequest || h.Type > TypeData || h.Length > MaxPayload {
			g.raw = true
			return false
		}
		g.side.wrote(h, r)
		rest = r
	}
	return begun && g.track.left > 0
}

// ended returns why nothing can be written any more, or nil.
func (g *gather) ended() error {
	if g.closed {
		return net.ErrClosed
	}
	return g.err
}

// push appends b to the queue.
func (g *gather) push(b []byte) {
	if g.queue == nil {
		g.queue = newBuffer()
	}
	g.queue.b = append(g.queue.b, b...)
}

// pushInjected moves the frames of our own into the queue if that is where the next frame begins.
func (g *gather) pushInjected() {
	if g.injected != nil && g.track.atBoundary() {
		g.push(g.injected.b)
		g.injected.free()
		g.injected = nil
		g.cond.Broadcast()
	}
}

// inject queues a whole frame of our own between those of ttrpc. It waits for room, with mu held before and after.
func (g *gather) inject(h Header, payload []byte) {
	full := func(b *buffer) bool { return b != nil && len(b.b) >= maxQueued }
	for g.ended() == nil && (full(g.queue) || full(g.injected)) {
		g.startFlush()
		g.cond.Wait()
	}
	if g.ended() != nil {
		return
	}
	if g.injected == nil {
		g.injected = newBuffer()
	}
	g.injected.b = AppendFrame(g.injected.b, h, payload)
	g.pushInjected()
	if g.injected == nil {
		g.startFlush()
	}
}

// startFlush makes sure that somebody writes the queue: the flusher, or the write in progress when it ends.
func (g *gather) startFlush() {
	if g.queue != nil && !g.flushing && !g.writing {
		g.flushing = true
		go g.flushFn()
	}
}

// flush writes the queue until it is empty.
func (g *gather) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.queue != nil && g.err == nil {
		if g.others >= crowd {
			g.mu.Unlock()
			runtime.Gosched()
			g.mu.Lock()
		}
		for g.writing {
			g.cond.Wait()
		}
		if g.queue == nil || g.err != nil {
			break
		}
		if _, err := g.writeNow(nil); err != nil {
			if g.closed {
				g.fail(err) // the linger is over
			}
			break // after a deadline the rest is still queued: the next Write or SetWriteDeadline takes it up
		}
	}
	g.flushing = false
	g.cond.Broadcast()
	g.side.progressed()
}

// writeNow writes the queue and then b, without mu meanwhile. It returns how many bytes of b were written. What a write
// deadline cuts off stays queued, except of b.
func (g *gather) writeNow(b []byte) (int, error) {
	q := g.queue
	g.queue = nil
	g.writing = true
	g.arm()
	var n int
	var err error
	switch {
	case q == nil:
		g.mu.Unlock()
		n, err = g.inner.Write(b)
	case len(b) == 0:
		g.mu.Unlock()
		n, err = g.inner.Write(q.b)
	default:
		g.pair = [2][]byte{q.b, b}
		g.vector = g.pair[:]
		g.mu.Unlock()
		var sum int64
		sum, err = g.vector.WriteTo(g.inner)
		n = int(sum)
		g.pair = [2][]byte{}
	}
	g.mu.Lock()
	g.writing = false
	g.writes++
	g.cond.Broadcast()
	g.side.progressed()

	if q != nil {
		took := min(n, len(q.b))
		n -= took
		if q.b = append(q.b[:0], q.b[took:]...); len(q.b) == 0 {
			q.free()
		} else {
			if g.queue != nil {
				q.b = append(q.b, g.queue.b...)
				g.queue.free()
			}
			g.queue = q
		}
	}
	if n < len(b) {
		g.raw = true // the caller may or may not repeat the rest, so where frames begin is lost
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		if q != nil {
			g.writeLost(err)
		} else if g.err == nil {
			g.err = err
		}
	}
	return n, err
}

// Close refuses further writes, gives the peer up to a second (or the IOTimeout, if shorter) to take what is queued,
// and closes the connection underneath.
func (g *gather) Close() error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		g.end()
		if g.err == nil && (g.queue != nil || g.writing) {
			// An error means that the connection is gone, which the flusher finds out as well.
			_ = g.inner.SetWriteDeadline(time.Now().Add(min(maxLinger, g.timeout)))
			for g.err == nil && (g.queue != nil || g.writing) {
				g.startFlush()
				g.cond.Wait()
			}
		}
		g.drop()
	}
	g.mu.Unlock()
	return g.inner.Close()
}

// writeLost ends the connection after bytes were lost that others believe to be written. Where answers are read, those
// that the peer sent before it went away still are, for up to maxLinger: a peer that stops has answered all it took.
func (g *gather) writeLost(err error) {
	if g.closed || !g.side.readsAnswers() || g.inner.SetReadDeadline(time.Now().Add(maxLinger)) != nil {
		g.fail(err)
		return
	}
	if g.err == nil {
		g.err = err
	}
	g.drop()
	g.end()
}

// fail ends the connection without a farewell. It gives up mu while it closes the connection underneath.
func (g *gather) fail(err error) {
	if g.err == nil {
		g.err = err
	}
	g.end()
	g.drop()
	g.mu.Unlock()
	// Why the connection ended is known already.
	_ = g.inner.Close()
	g.mu.Lock()
}

// end wakes everyone who waits for something that will not happen any more.
func (g *gather) end() {
	select {
	case <-g.quit:
		return
	default:
	}
	close(g.quit)
	if g.timer != nil {
		g.timer.Stop()
	}
	g.cond.Broadcast()
	g.side.progressed()
}

// drop forgets what is queued.
func (g *gather) drop() {
	g.queue.free()
	g.injected.free()
	g.queue, g.injected = nil, nil
	g.cond.Broadcast()
}

// arm sees to it that the connection is looked at while somebody waits for the peer. It costs nothing while armed,
// which a deadline for each operation would.
func (g *gather) arm() {
	if g.armed {
		return
	}
	g.armed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(g.timeout/ticksPerTimeout, g.tick)
	} else {
		g.timer.Reset(g.timeout / ticksPerTimeout)
	}
}

// tick ends the connection if the peer has used up its time.
func (g *gather) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	select {
	case <-g.quit:
		return
	default:
	}
	watch, err := g.side.check()
	if g.written.tick(g.writing, g.writes) {
		err = fmt.Errorf("write to peer: nothing taken for %v: %w", g.timeout, os.ErrDeadlineExceeded)
	}
	switch {
	case err != nil:
		g.side.cutOff(err)
		g.fail(err)
	case watch || g.writing:
		g.arm()
	}
}

// stall counts for how many ticks one thing has been under way.
type stall struct {
	seq   uint64
	ticks int
}

// tick reports whether the thing numbered seq has been going on for an IOTimeout. Ticks at which it is not active do
// not count, nor do they clear the count.
func (s *stall) tick(active bool, seq uint64) bool {
	if s.seq != seq || s.ticks == 0 {
		*s = stall{seq: seq}
	}
	if active {
		s.ticks++
	}
	return s.ticks > ticksPerTimeout
}

// buffer is a pooled byte slice, so that an idle connection holds none.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 4<<10)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// free gives the buffer back. It does nothing for nil.
func (b *buffer) free() {
	if b == nil {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}
