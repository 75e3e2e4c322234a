package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// DefaultIOTimeout is how long a peer may take over one frame if the options do not say.
	DefaultIOTimeout = 30 * time.Second

	// linger bounds how long Close waits for a peer to take what is queued for it, and how long answers are still read
	// from a connection that can no longer be written.
	linger = time.Second

	// maxQueued bounds the bytes that wait for a running write; a frame that finds no room waits as well.
	maxQueued = 256 << 10

	// largeFrame is the length in bytes from which copying a frame into the queue costs more than waiting for the
	// running write.
	largeFrame = 32 << 10

	// maxPiece bounds what is written at once. Between two pieces it shows that the peer still takes bytes.
	maxPiece = 128 << 10

	// crowd is the number of open calls with which the others are not yet let run before the queue is written. They may
	// have frames for it, but if they are few, letting them run takes more time than the writes which that saves.
	crowd = 16

	// minTaken is the least that shows within a piece, which can wait long for a kernel that has much for a slow peer.
	minTaken = 4 << 10

	// patience is how long a peer may take nothing before requests that find no room are refused. It is longer than a
	// Guard lets a frame wait for memory.
	patience = memoryTimeout + time.Second

	// ticksPerTimeout is how often in an IOTimeout the connection is looked at. A peer is cut off at most one tick
	// late.
	ticksPerTimeout = 4
)

// writer writes whole frames to a connection: each at once if no other call is open, and else through a queue. Then
// more frames may be about to follow, and one system call can take them all. ttrpc issues its writes one after another
// from one goroutine or under one lock, so writes never overlap by themselves: only the number of open calls tells.
//
// A goroutine and a buffer exist while something is queued, and none while the connection is idle.
//
// The owner's lock guards a writer. Whoever calls a method holds it; the method gives it up while it waits or writes.
type writer struct {
	mu      *sync.Mutex
	changed sync.Cond // anything below has changed
	timeout time.Duration
	period  time.Duration // between arm and tick
	lost    func()        // tells the owner that err was set; must not block
	wrote   func()        // tells the owner that a write has ended, if not nil; must not block
	tick    func()        // called without mu, a tick after arm
	flushFn func()        // flush as a value made once, because a go statement with a receiver allocates
	conn    net.Conn
	calls   int // that are open

	queue    *buffer // what the flusher takes next; nil if there is nothing
	writing  bool    // a goroutine is in conn.Write, without mu
	flushing bool    // the flusher runs
	vector   net.Buffers
	parts    [3][]byte // backs vector
	closed   bool      // by finish
	err      error     // why nothing can be written any more, if not because of finish

	inline      bool // the goroutine in conn.Write is a caller of write
	interrupted bool // release has ended its conn.Write
	taken       int  // bytes of the first frame in the queue that conn has taken
	stuck       bool // release was called, and the peer has taken nothing since

	armed   bool
	timer   *time.Timer
	blocked int // ticks since the last piece of a write
	stalled int // ticks since the peer has last taken something
	unsent  int // at that time
}

// errStuck says that a request found no room while the peer takes nothing.
var errStuck = errors.New("the server takes nothing, and too much waits for it already")

func (w *writer) init(mu *sync.Mutex, timeout time.Duration, lost, tick func()) {
	w.mu, w.timeout, w.lost, w.tick, w.flushFn = mu, timeout, lost, tick, w.flush
	if timeout <= 0 {
		w.timeout = DefaultIOTimeout
	}
	w.period = max(1, w.timeout/ticksPerTimeout)
	w.changed.L = mu
}

// ended returns why nothing can be written any more, or nil.
func (w *writer) ended() error {
	if w.closed || w.conn == nil {
		return net.ErrClosed
	}
	return w.err
}

// pending reports whether something is queued or being written.
func (w *writer) pending() bool { return w.writing || len(w.queue.bytes()) > 0 }

// write writes f or queues a copy of it. It returns how many bytes of f were taken and, if not all, why. An error that
// befalls queued bytes later is returned by the next write.
func (w *writer) write(f *frame) (int, error) {
	large := f.size() >= largeFrame
	if !large && (w.calls > 1 || w.writing || w.flushing) {
		return w.enqueue(f)
	}
	for w.writing && w.ended() == nil && !w.stuck {
		w.changed.Wait()
	}
	if w.stuck {
		return w.enqueue(f)
	}
	if err := w.ended(); err != nil {
		return 0, err
	}
	return w.writeNow(f)
}

// enqueue queues a copy of f. It waits while there is no room. While w is stuck there is more room, and a request that
// still finds none after a while gets errStuck.
func (w *writer) enqueue(f *frame) (int, error) {
	full := func(room int) bool { return len(w.queue.bytes()) > 0 && len(w.queue.bytes())+f.size() > room }
	for w.ended() == nil && full(maxQueued) && (!w.stuck || full(maxWaiting)) {
		if w.stuck && f.Type == TypeRequest && time.Duration(w.blocked)*w.period > patience {
			return 0, errStuck
		}
		w.changed.Wait()
	}
	if err := w.ended(); err != nil {
		return 0, err
	}
	w.push(f)
	w.startFlush()
	return f.size(), nil
}

// push appends a copy of f to the queue, however long that is.
func (w *writer) push(f *frame) {
	if w.queue == nil {
		w.queue = newBuffer()
	}
	w.queue.push(f)
}

// startFlush makes sure that the queue gets written: by the flusher, or by the write in progress when it ends.
func (w *writer) startFlush() {
	if len(w.queue.bytes()) > 0 && w.err == nil && !w.flushing && !w.writing {
		w.flushing = true
		go w.flushFn()
	}
}

// flush writes the queue until it is empty.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue.bytes()) > 0 && w.err == nil {
		if w.calls > crowd {
			w.mu.Unlock()
			runtime.Gosched() // the goroutines that may add to the queue
			w.mu.Lock()
		}
		if w.writing {
			w.changed.Wait()
		} else if len(w.queue.bytes()) > 0 && w.err == nil {
			_, _ = w.writeNow(&frame{}) // the error stays in err
		}
	}
	w.flushing = false
	w.changed.Broadcast()
}

// writeNow writes the queue and then f, without mu meanwhile. It returns how many bytes of f were taken. The frames of
// the queue that were not taken as a whole are queued again.
func (w *writer) writeNow(f *frame) (int, error) {
	q, before := w.queue, w.taken
	w.queue, w.taken, w.writing, w.inline = nil, 0, true, f.size() > 0
	w.arm()
	w.mu.Unlock()
	n, err := w.transmit(q.bytes()[before:], f)
	w.mu.Lock()
	w.writing = false
	if n > 0 {
		w.stalled, w.blocked, w.stuck = 0, 0, w.interrupted
	}
	w.changed.Broadcast()
	n += before
	ofQueue := min(len(q.bytes()), n)
	goOn := w.interrupted && !w.closed && w.conn.SetWriteDeadline(time.Time{}) == nil &&
		errors.Is(err, os.ErrDeadlineExceeded)
	w.interrupted = false
	if goOn {
		if q == nil {
			q = newBuffer()
		}
		q.push(f)
		ofQueue, err = n-f.size(), nil
	}
	if whole := w.keep(q, n); goOn {
		w.taken = n - whole
	}
	if err != nil {
		w.fail(err)
	}
	if w.wrote != nil {
		w.wrote()
	}
	w.startFlush()
	return n - ofQueue, err
}

// progress notes that the peer has taken something.
func (w *writer) progress() { w.stalled, w.blocked, w.stuck = 0, 0, false }

// transmit writes q and f to the connection, in one system call if they are no longer than a piece.
func (w *writer) transmit(q []byte, f *frame) (n int, err error) {
	rest := [...][]byte{q, f.head, f.tail}
	for all := len(q) + f.size(); n < all && err == nil; {
		if n > 0 {
			w.mu.Lock()
			w.progress()
			w.mu.Unlock()
		}
		parts, room := w.parts[:0], maxPiece
		for i := range rest {
			if size := min(len(rest[i]), room); size > 0 {
				parts = append(parts, rest[i][:size])
				rest[i], room = rest[i][size:], room-size
			}
		}
		m := int64(0)
		if len(parts) == 1 {
			var size int
			size, err = w.conn.Write(parts[0])
			m = int64(size)
		} else {
			w.vector = parts
			m, err = w.vector.WriteTo(w.conn)
		}
		n += int(m)
	}
	clear(w.parts[:])
	return n, err
}

// keep queues the frames of q again of which a write that took n bytes has not taken all. It returns the length of the
// others.
func (w *writer) keep(q *buffer, n int) (whole int) {
	if n >= len(q.bytes()) {
		q.free()
		return n
	}
	sent := 0
	q.filter(func(f *frame) bool {
		if sent += f.size(); sent <= n {
			whole = sent
		}
		return sent > n
	})
	if w.queue != nil {
		q.b, q.made = append(q.b, w.queue.b...), append(q.made, w.queue.made...)
		w.queue.free()
	}
	w.queue = q
	return whole
}

// release lets the callers go that wait for a peer which takes nothing: their frames are queued. What one of them is
// writing is interrupted only on a socket itself, because a write that tls.Conn has not finished breaks it.
func (w *writer) release() {
	w.stuck = true
	w.changed.Broadcast()
	if _, socket := w.conn.(syscall.Conn); socket && w.inline && !w.closed {
		w.interrupted = w.conn.SetWriteDeadline(time.Unix(1, 0)) == nil
	}
}

// fail ends all writing.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
		w.changed.Broadcast()
		w.lost()
	}
}

// finish refuses further writes and gives the peer up to a second (or the timeout, if shorter) to take what is queued.
func (w *writer) finish() {
	w.closed = true
	w.changed.Broadcast()
	if w.err == nil && w.pending() {
		// An error means that the connection is gone, which the flusher finds out as well.
		_ = w.conn.SetWriteDeadline(time.Now().Add(min(linger, w.timeout)))
		for w.err == nil && w.pending() {
			w.startFlush()
			w.changed.Wait()
		}
	}
	w.queue.free()
	w.queue = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// arm sees to it that tick is called while somebody waits for the peer. It costs nothing while armed, which a deadline
// for each operation would.
func (w *writer) arm() {
	if w.armed {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(w.period, w.tick)
	} else {
		w.timer.Reset(w.period)
	}
}

// check is for tick to call. It returns an error if the peer has taken nothing for the timeout.
func (w *writer) check() error {
	if w.writing {
		w.stalled++
		w.blocked++
		if n := unsent(w.conn); max(n-w.unsent, w.unsent-n) >= minTaken {
			w.stalled, w.unsent = 0, n
		}
	}
	if time.Duration(w.stalled) > w.timeout/w.period {
		return fmt.Errorf("write to peer: nothing taken for %v: %w", w.timeout, os.ErrDeadlineExceeded)
	}
	return nil
}

// stall counts for how many ticks one thing has been under way. It is set to 0 when that thing has ended.
type stall int

// tick reports whether the thing has been going on for an IOTimeout. Ticks at which it is not active do not count, nor
// do they clear the count.
func (s *stall) tick(active bool) bool {
	if active {
		*s++
	}
	return *s > ticksPerTimeout
}

// noDeadline refuses deadlines: one would make Read or Write fail, which ends a ttrpc.Client or a server's connection
// for good.
type noDeadline struct{}

// SetDeadline returns os.ErrNoDeadline.
func (noDeadline) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline returns os.ErrNoDeadline.
func (noDeadline) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline returns os.ErrNoDeadline.
func (noDeadline) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
