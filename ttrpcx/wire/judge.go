package wire

import (
	"errors"
	"fmt"
	"io"
)

// minRead is the smallest slice that input is judged in; ttrpc's bufio.Reader never offers a smaller one.
const minRead = 4096

// Read returns frames that ttrpc can take. It returns no error but io.EOF, for ttrpc leaves a connection open for
// ever on most others: after a refusal, and on any error of the connection underneath.
func (c *GuardedConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(p) >= minRead && len(c.ready) == 0 {
		return c.judged(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.ready) == 0 {
		b := make([]byte, minRead)
		n, err := c.judged(b)
		if err != nil {
			return 0, err
		}
		c.ready = b[:n]
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// judged fills p with frames, or parts of frames, that ttrpc may see.
func (c *GuardedConn) judged(p []byte) (int, error) {
	for {
		n := copy(p, c.stash)
		more := c.left == 0 && n < HeaderSize || c.left > 0 && n == 0
		if more {
			if c.readErr != nil {
				c.settle()
				return 0, io.EOF
			}
			n += c.fill(p[n:], n > 0)
		}
		w, used, err := c.judge(p[:n])
		switch {
		case err != nil:
			c.stash, c.readErr = nil, err
			c.refuse(err)
		case !more && used < len(c.stash):
			c.stash = c.stash[used:]
		case n-used < HeaderSize:
			c.stash = append(c.head[:0], p[used:n]...)
		default:
			c.stash = append([]byte(nil), p[used:n]...)
		}
		if w > 0 {
			return w, nil
		}
	}
}

// fill reads what has arrived into p, and notes the error if there is one.
func (c *GuardedConn) fill(p []byte, inHeader bool) int {
	inFrame := inHeader || c.left > 0
	c.mu.Lock()
	if c.aheadOf != c.writes || !c.writing {
		c.aheadOf, c.ahead = c.writes, 0
	} else {
		c.ahead += c.lastRead
	}
	for c.writing && c.aheadOf == c.writes && c.ahead >= maxReadAhead && c.ended() == nil {
		c.cond.Wait()
	}
	c.frames = c.finished
	if inFrame {
		c.inFrame = true
		c.arm()
	}
	c.mu.Unlock()

	n, err := c.inner.Read(p)
	c.lastRead, c.readErr = n, err

	if inFrame {
		c.mu.Lock()
		c.inFrame = false
		c.mu.Unlock()
	}
	return n
}

// refuse notes a peer's misdeed.
func (c *GuardedConn) refuse(reason error) {
	if errors.Is(reason, io.EOF) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutOff(reason)
}

// judge moves what ttrpc may see to the front of p and returns its length. used is how much of p is dealt with; the
// rest is to be judged again, with what comes after it.
func (c *GuardedConn) judge(p []byte) (w, used int, err error) {
	for used < len(p) {
		if c.left > 0 {
			part := p[used:min(used+c.left, len(p))]
			used += len(part)
			c.left -= len(part)
			if !c.skip {
				if c.frame.Type == TypeRequest {
					if err := c.request.feed(part); err != nil {
						return w, used, err
					}
				}
				w += copy(p[w:], part)
			}
		} else {
			h, ok := ParseHeader(p[used:])
			if !ok {
				return w, used, nil
			}
			verdict, err := c.open(h, w == 0)
			if err != nil || verdict == later {
				return w, used, err
			}
			c.frame, c.left, c.skip = h, int(h.Length), verdict == drop
			if !c.skip {
				w += copy(p[w:], p[used:used+HeaderSize])
			}
			used += HeaderSize
		}
		if c.left == 0 {
			if err := c.finish(); err != nil {
				return w, used, err
			}
		}
	}
	return w, used, nil
}

// verdict is what becomes of a frame.
type verdict uint8

const (
	pass  verdict = iota
	drop          // ttrpc does not see it
	later         // it has to wait, and ttrpc must have what came before it first
)

// open judges a header. If the frame has to wait, it waits if mayWait and else returns later.
func (c *GuardedConn) open(h Header, mayWait bool) (verdict, error) {
	if h.Length > MaxPayload {
		return 0, fmt.Errorf("frame of %d bytes is over the limit of %d", h.Length, MaxPayload)
	}
	large := h.Length >= largeFrame
	if large && !mayWait {
		return later, nil
	}
	var v verdict
	var err error
	switch h.Type {
	case TypeRequest:
		v, err = c.openRequest(h, mayWait)
	case TypeData:
		v, err = c.openData(h)
	default:
		err = fmt.Errorf("frame type %d is not one that clients send", h.Type)
	}
	if err == nil && v == pass && large {
		err = c.takeShare(int(h.Length))
	}
	return v, err
}

// openRequest judges a request's header and finds a place for the call.
func (c *GuardedConn) openRequest(h Header, mayWait bool) (verdict, error) {
	if h.StreamID%2 == 0 {
		return 0, fmt.Errorf("stream id %d of a request is even", h.StreamID)
	}
	if h.StreamID <= c.lastID {
		return 0, fmt.Errorf("stream id %d of a request is not higher than %d", h.StreamID, c.lastID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.draining && len(c.calls) >= c.guard.options.MaxCalls && c.sending == 0 && !c.overdue {
		if !mayWait {
			return later, nil
		}
		if c.ended() != nil {
			return 0, io.EOF
		}
		if !c.waiting {
			c.waiting = true
			c.waits++
			c.arm()
		}
		c.cond.Wait()
	}
	c.waiting = false
	c.lastID = h.StreamID
	switch {
	case c.draining:
		c.inject(Header{StreamID: h.StreamID, Type: TypeResponse}, refusedDraining)
		return drop, nil
	case len(c.calls) >= c.guard.options.MaxCalls:
		c.inject(Header{StreamID: h.StreamID, Type: TypeResponse}, refusedBusy)
		return drop, nil
	}
	if c.calls == nil {
		c.calls = make(map[uint32]call)
	}
	c.calls[h.StreamID] = call{}
	c.request.reset(int(h.Length))
	return pass, nil
}

// openData judges the header of a message from the client.
func (c *GuardedConn) openData(h Header) (verdict, error) {
	if h.StreamID > c.lastID {
		return 0, fmt.Errorf("data for stream %d, which was never opened", h.StreamID)
	}
	if h.Flags&(FlagRemoteClosed|FlagNoData) != 0 && h.Length > 0 {
		return 0, fmt.Errorf("data for stream %d with flags %#x has a payload", h.StreamID, h.Flags)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	open, ok := c.calls[h.StreamID]
	switch {
	case !ok || open.answered:
		return drop, nil
	case open.kind != clientStream:
		return 0, fmt.Errorf("data for stream %d, which takes none", h.StreamID)
	case open.closed:
		return 0, fmt.Errorf("data for stream %d after its end", h.StreamID)
	}
	if h.Flags&FlagRemoteClosed != 0 {
		c.stopSending(open)
		open.closed = true
		c.calls[h.StreamID] = open
	}
	return pass, nil
}

// takeShare waits until n more bytes may be received.
func (c *GuardedConn) takeShare(n int) error {
	if !c.guard.receiving.take(n, c.quit) {
		return io.EOF
	}
	c.mu.Lock()
	c.share = n
	over := c.ended() != nil
	c.mu.Unlock()
	if over {
		c.settle()
		return io.EOF
	}
	return nil
}

// settle gives back the share of the current frame.
func (c *GuardedConn) settle() {
	c.mu.Lock()
	n := c.share
	c.share = 0
	c.mu.Unlock()
	if n > 0 {
		c.guard.receiving.give(n)
	}
}

// finish ends a frame all of which was read.
func (c *GuardedConn) finish() error {
	c.finished++
	if c.frame.Length >= largeFrame {
		c.settle()
	}
	if c.frame.Type != TypeRequest || c.skip {
		return nil
	}
	if err := c.request.finish(); err != nil {
		return err
	}
	kind := c.request.kind()
	if kind == unary {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[c.frame.StreamID] = call{kind: kind}
	if kind == clientStream {
		c.sending++
	}
	return nil
}
