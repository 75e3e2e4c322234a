package wire

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// input is what the reading half of a GuardedConn keeps from one Read to the next.
type input struct {
	part    *buffer // read and not judged yet; nil if there is nothing
	ready   []byte  // judged and not handed out yet
	err     error   // of the connection; what is left is handed out first
	last    int     // bytes that the last read brought
	done    bool    // a frame was finished since the last read
	frame   Header  // the current frame
	verdict verdict // of it
	left    int64   // bytes of its payload to come
	parks   bool    // calls were parked when it was last looked
	whole   []byte  // the current frame, if it is parked or gathered
	backs   *[]byte // backs whole or ready, if that is a frame that was gathered
	invalid error   // why ttrpc is made to refuse the current frame
}

// Read returns frames that ttrpc can take. It returns no error but io.EOF, because ttrpc leaves a connection open for
// ever on most others: after a refusal, and on any error of the connection underneath.
func (c *GuardedConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	in := &c.input
	for len(in.ready) == 0 && len(p) > 0 && (!in.parks || !c.unpark()) {
		b := p
		if len(p) < ttrpcBuffer {
			b = make([]byte, ttrpcBuffer)
		}
		n, err := c.judged(b[:max(ttrpcBuffer, int(min(in.left, int64(len(b)))))])
		switch {
		case err != nil:
			return 0, err
		case n > 0 && len(p) >= ttrpcBuffer:
			return n, nil
		case n > 0:
			in.ready = b[:n]
		}
	}
	n := copy(p, in.ready)
	if in.ready = in.ready[n:]; len(in.ready) == 0 && in.backs != nil {
		gathered[class(cap(*in.backs))].Put(in.backs)
		in.backs = nil
	}
	return n, nil
}

// gathered has buffers for the frames that are gathered, by their class.
var gathered [17]sync.Pool // of *[]byte

// class is the logarithm of the size of a buffer that has room for n bytes.
func class(n int) int { return bits.Len(uint(n - 1)) }

// gather makes whole a buffer for n bytes, which are at most directFrame.
func (in *input) gather(n int) {
	b, ok := gathered[class(n)].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, 1<<class(n))
		b = &fresh
	}
	in.whole, in.backs = (*b)[:0:n], b
}

// judged fills p with frames, or parts of frames, that ttrpc may see. There may be none, if a parked call can go on.
func (c *GuardedConn) judged(p []byte) (int, error) {
	in := &c.input
	for {
		n := 0
		if in.part != nil {
			n = copy(p, in.part.b)
			in.part.free()
			in.part = nil
		}
		if in.verdict == gather && in.left > 0 {
			p = in.whole[len(in.whole):cap(in.whole)]
		}
		if n == 0 || in.left == 0 && !judgeable(p[:n]) {
			if in.err != nil {
				return 0, io.EOF
			}
			read := c.fill(p[n:], n > 0 || in.left > 0)
			if n += read; read == 0 && in.err == nil {
				in.keep(p[:n])
				return 0, nil
			}
		}
		w, used, err := c.sift(p[:n])
		if err != nil {
			in.err = err
			if !errors.Is(err, io.EOF) {
				c.mu.Lock()
				c.refuse(err)
				c.mu.Unlock()
			}
		} else if used < n {
			in.keep(p[used:n])
		}
		if w > 0 || len(in.ready) > 0 {
			return w, nil
		}
		if in.verdict != gather {
			runtime.Gosched() // peers whose frames are dropped must not keep others waiting
		}
	}
}

// judgeable reports whether a frame can be judged of which b has the start: a short one only when all of it is here.
func judgeable(b []byte) bool {
	h, ok := ParseHeader(b)
	size := HeaderSize + int64(h.Length)
	return ok && (size > ttrpcBuffer || int64(len(b)) >= size)
}

// keep notes that b is to be judged later.
func (in *input) keep(b []byte) {
	if len(b) > 0 {
		in.part = newBuffer()
		in.part.b = append(in.part.b, b...)
	}
}

// fill reads what has arrived into p, and notes the error if there is one. It reads nothing if a parked call can go on.
func (c *GuardedConn) fill(p []byte, inFrame bool) int {
	in := &c.input
	c.mu.Lock()
	c.awaitWrite()
	if in.done {
		c.unread, in.done = 0, false
		c.hold(-c.spent) // ttrpc has had time to put these messages into the queues of their streams
		c.spent = 0
	}
	if inFrame {
		c.inFrame = true
		c.out.arm()
	}
	in.parks = c.judge.parked > 0
	_, ready := c.next()
	c.reading, c.woken = in.parks && !ready, false
	running := c.judge.running()
	c.mu.Unlock()
	if ready {
		in.last = 0
		return 0
	}
	if running > 0 && !inFrame {
		runtime.Gosched() // handlers and their answers go first: nothing may have come meanwhile
	}
	in.last, in.err = c.conn.Read(p)
	if inFrame || c.reading {
		c.mu.Lock()
		c.inFrame, c.reading = false, false
		c.arrived += in.last
		if c.woken {
			err := c.conn.SetReadDeadline(time.Time{})
			if errors.Is(in.err, os.ErrDeadlineExceeded) {
				in.err = err
			}
		}
		c.mu.Unlock()
	}
	return in.last
}

// awaitWrite waits for the write in progress, if there is no memory to read on. A peer may send and not read: if all
// that it sends were read, it would fill the queues of its streams. If nothing were read, then clients whose receiver
// waits for their sender would hang: https://github.com/containerd/ttrpc/pull/107. mu is held.
func (c *GuardedConn) awaitWrite() {
	n := int64(c.input.last)
	if !c.out.writing || n == 0 || c.ended {
		return
	}
	for !c.account.reserve(n, shareOfRequests) {
		c.out.changed.Wait()
		if !c.out.writing || c.ended {
			return
		}
	}
	c.ahead += n
}

// wake lets the reader see that a call has ended, if calls are parked. mu is held.
func (c *GuardedConn) wake() {
	if c.reading && !c.woken {
		c.woken = true
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // the reader finds out if the connection has ended
	}
}

// next returns the parked call that ttrpc may get now, if there is one. ttrpc cannot get it in the midst of another
// frame, nor before a message of it has arrived that was begun. mu is held.
func (c *GuardedConn) next() (id uint32, ok bool) {
	in := &c.input
	passing := in.left > 0 && (in.verdict == pass || in.verdict == spoil)
	if c.judge.parked == 0 || c.judge.running() >= c.judge.maxCalls || passing {
		return 0, false
	}
	for len(c.order) > 0 && c.parked[c.order[0]] == nil {
		c.order = c.order[1:]
	}
	if len(c.order) == 0 || in.left > 0 && in.verdict == park && in.frame.StreamID == c.order[0] {
		return 0, false
	}
	return c.order[0], true
}

// unpark makes the frames of the next parked call ready, and reports whether there are some.
func (c *GuardedConn) unpark() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, ok := c.next()
	if !ok {
		return false
	}
	c.input.ready = c.parked[id]
	delete(c.parked, id)
	c.judge.unpark(id, callCost-parkedCost)
	c.hold(callCost - parkedCost)
	c.full = 0
	return true
}

// refuseParked answers all parked calls. It must not wait. mu is held.
func (c *GuardedConn) refuseParked(err error) {
	for _, id := range c.order {
		if c.parked[id] != nil {
			c.hold(-c.judge.forget(id))
			f := refusalOf(id, err)
			c.out.push(&f)
		}
	}
	c.parked, c.order = nil, nil
	c.countQueue()
	c.out.startFlush()
	c.out.changed.Broadcast()
}

// sift moves what ttrpc may see to the front of p and returns its length. used is how much of p is dealt with; the
// rest is to be judged again, with what comes after it.
func (c *GuardedConn) sift(p []byte) (w, used int, err error) {
	in := &c.input
	for used < len(p) {
		n := int(min(in.left, int64(len(p)-used)))
		if n == 0 {
			if !judgeable(p[used:]) {
				return w, used, nil
			}
			h, _ := ParseHeader(p[used:])
			if admitted, err := c.admit(h, len(p)-used, w == 0); err != nil || !admitted {
				return w, used, err
			}
			n = HeaderSize
		} else {
			if err := c.check(p[used : used+n]); err != nil {
				return w, used, err
			}
			in.left -= int64(n)
		}
		w += c.place(p[w:], p[used:used+n])
		used += n
		if in.left == 0 {
			if err := c.finish(); err != nil || len(in.ready) > 0 {
				return w, used, err
			}
		}
	}
	return w, used, nil
}

// place puts what becomes of b, the next bytes of the current frame, to the front of p, and returns its length.
func (c *GuardedConn) place(p, b []byte) int {
	in := &c.input
	switch in.verdict {
	case spoil:
		if in.left == int64(in.frame.Length) {
			b = Header{Length: 1, StreamID: in.frame.StreamID, Type: TypeData}.Append(p[:0])
			return len(b)
		}
		in.verdict = drop
		p[0] = 0xff
		return 1
	case pass:
		if &p[0] != &b[0] {
			copy(p, b)
		}
		return len(b)
	case park, gather:
		in.whole = append(in.whole, b...)
	}
	return 0
}

// request reports whether the current frame is a request that ttrpc gets, now or later.
func (in *input) request() bool {
	return in.frame.Type == TypeRequest && (in.verdict == pass || in.verdict == gather || in.verdict == park)
}

// check reads the next bytes of the current frame if it is a request. If ttrpc must not have the request, check makes
// it one that ttrpc refuses, because ttrpc may have its start already.
func (c *GuardedConn) check(b []byte) error {
	in := &c.input
	if !in.request() {
		return nil
	}
	if in.invalid != nil {
		c.request.spoil(b)
		return nil
	}
	err := c.request.feed(b)
	if errors.Is(err, errMetadata) {
		in.invalid, err = err, nil
	}
	return err
}

// admit makes h the header of the current frame. inHand is how many bytes of it have arrived. If the frame has to wait
// for memory, it waits if mayWait; else admit returns false, because ttrpc must have what came before it first.
func (c *GuardedConn) admit(h Header, inHand int, mayWait bool) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := clock()
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		v, err := c.judge.judge(h)
		if err != nil {
			return false, err
		}
		if c.ended || c.out.ended() != nil {
			return false, io.EOF
		}
		missing := int64(inHand) < HeaderSize+int64(h.Length)
		if v == pass && missing && HeaderSize+h.Length <= directFrame {
			v = gather
		}
		cost, passing := c.costOf(h, v, missing)
		waited := clock() - start
		switch {
		case cost+passing == 0 || c.account.reserve(cost+passing, shareOfRequests):
			c.accept(h, v, cost, passing, missing)
			return true, nil
		case !mayWait:
			return false, nil
		case waited >= memoryTimeout:
			c.accept(h, noMemory, 0, 0, missing)
			return true, nil
		}
		c.mu.Unlock()
		c.guard.evict()
		sleep(c.ctx, min(pause, memoryTimeout-waited))
		c.mu.Lock()
	}
}

// costOf returns how much memory the frame takes, in bytes: until its call ends, and until ttrpc has dealt with it.
// missing means that not all of it is here. A message that is here takes none until it waits for its handler, where
// package interceptor's Memory counts it.
func (c *GuardedConn) costOf(h Header, v verdict, missing bool) (cost, passing int64) {
	n := int64(h.Length)
	switch {
	case v == gather:
		passing = 1 << class(HeaderSize+int(n))
	case v == pass && missing: // ttrpc's pool may give it a buffer for the largest
		passing = max(0, c.guard.largest.Load()-n)
	}
	switch {
	case h.Type == TypeRequest && (v == pass || v == gather):
		return callCost + n*requestCopies, passing
	case h.Type == TypeRequest && v == park:
		return parkedCost + n*requestCopies, 0
	case v == park:
		return (HeaderSize + n) * messageCopies, 0
	case missing && (v == pass || v == gather):
		return 0, n*messageCopies + passing
	}
	return 0, 0
}

// accept makes h the header of the current frame and its verdict v. mu is held.
func (c *GuardedConn) accept(h Header, v verdict, cost, passing int64, missing bool) {
	if refused := refusalFor(h, v); refused != nil {
		if _, parked := c.parked[h.StreamID]; h.Type == TypeRequest || parked {
			c.refuseCall(h.StreamID, refused)
		} else {
			v = spoil
			c.judge.opened(h.StreamID, clientStream, refused, 0)
		}
	}
	c.judge.accept(h, v, cost)
	in := &c.input
	in.frame, in.left, in.verdict, in.invalid = h, int64(h.Length), v, nil
	c.share = passing
	switch {
	case v == gather:
		in.gather(HeaderSize + int(h.Length))
	case v == pass && int64(h.Length) > c.guard.largest.Load():
		c.guard.largest.Store(int64(h.Length))
	}
	if h.Type == TypeRequest {
		c.request.reset(int(h.Length))
	}
	if missing && cost+passing > 0 {
		c.mark, c.markAt = c.arrived, clock()
		c.guard.mu.Lock()
		c.guard.receiving[c] = struct{}{}
		c.guard.mu.Unlock()
	}
}

var (
	errShuttingDown = status.Error(codes.Unavailable, "server is shutting down")
	errTooManyCalls = status.Error(codes.ResourceExhausted, "too many calls are open on this connection")
)

// refusalFor returns the error with which the call of a frame ends, if v ends it.
func refusalFor(h Header, v verdict) error {
	switch v {
	case busy:
		return errTooManyCalls
	case ending:
		return errShuttingDown
	case noMemory:
		return errNoMemory
	case probe:
		return status.Error(codes.InvalidArgument, "StreamID must be odd for client initiated streams")
	case tooLong:
		return status.Error(codes.ResourceExhausted,
			fmt.Sprintf("message of %d bytes is over the limit of %d", h.Length, MaxPayload))
	}
	return nil
}

// refuseCall answers in the place of ttrpc. It queues the answer, because the peer may not read before its own frames
// are read. mu is held.
func (c *GuardedConn) refuseCall(id uint32, err error) {
	if _, ok := c.parked[id]; ok {
		delete(c.parked, id)
		c.hold(-c.judge.forget(id))
	}
	answer := refusalOf(id, err)
	_, _ = c.out.enqueue(&answer) // if it cannot be written, nobody waits for it
}

// refusalOf returns the frame that ends a call with err, which has a status.
func refusalOf(id uint32, err error) frame {
	s := status.Convert(err)
	b := refusal(id, s.Code(), s.Message())
	if err == errShuttingDown {
		b[HeaderSize-1] = byte(FlagStopping)
	}
	h, _ := ParseHeader(b)
	return frame{Header: h, tail: b}
}

// received notes that the connection holds no memory for a frame that is arriving.
func (g *Guard) received(c *GuardedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.receiving, c)
}

// finish ends a frame all of which was read.
func (c *GuardedConn) finish() error {
	in := &c.input
	in.done = true
	if in.frame.Length > ttrpcBuffer-HeaderSize {
		c.guard.received(c)
	}
	request := in.request()
	kind, entries := unary, int64(0)
	if request {
		if err := c.request.finish(); err != nil && in.invalid == nil {
			return err
		}
		kind = c.request.kind(c.guard.methods)
		entries = int64(c.request.entries) * entryCopies
	}
	if in.verdict == gather {
		in.ready, in.whole = in.whole, nil
	}
	if in.verdict != park && kind == unary && in.invalid == nil && c.share == 0 && entries == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent, c.share = c.spent+c.share, 0
	if request {
		c.hold(entries)
		c.judge.opened(in.frame.StreamID, kind, in.invalid, entries)
	}
	if in.verdict == park {
		c.parkFrame()
	}
	return nil
}

// parkFrame keeps the current frame until ttrpc may have it. mu is held.
func (c *GuardedConn) parkFrame() {
	in := &c.input
	id, b := in.frame.StreamID, in.whole
	in.whole = nil
	switch _, ok := c.parked[id]; {
	case ok:
		c.parked[id] = append(c.parked[id], b...)
	case in.frame.Type != TypeRequest: // its call was refused meanwhile
	default:
		if c.parked == nil {
			c.parked = make(map[uint32][]byte)
		}
		c.parked[id] = b
		c.order = append(c.order, id)
		in.parks = true
		c.out.arm()
		if c.judge.draining {
			c.refuseCall(id, errShuttingDown)
		}
	}
}
