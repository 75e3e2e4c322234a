package wire

import (
	"errors"
	"io"

	"google.golang.org/grpc/codes"
)

// input is what the reading half of a GuardedConn keeps from one Read to the next.
type input struct {
	part  *buffer // read and not judged yet; nil if there is nothing
	ready []byte  // judged and not handed out yet, for callers with small slices
	err   error   // of the connection; what is left is handed out first
	last  int     // bytes that the last read brought
	done  bool    // a frame was finished since the last read
	frame Header  // the current frame
	left  int     // bytes of its payload to come
	skip  bool    // it is not handed on
}

// Read returns frames that ttrpc can take. It returns no error but io.EOF, because ttrpc leaves a connection open for
// ever on most others: after a refusal, and on any error of the connection underneath.
func (c *GuardedConn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	in := &c.input
	switch {
	case len(in.ready) > 0 || len(p) == 0:
	case len(p) >= ttrpcBuffer:
		return c.judged(p[:max(ttrpcBuffer, min(in.left, len(p)))])
	default:
		b := make([]byte, ttrpcBuffer)
		n, err := c.judged(b)
		if err != nil {
			return 0, err
		}
		in.ready = b[:n]
	}
	n := copy(p, in.ready)
	in.ready = in.ready[n:]
	return n, nil
}

// judged fills p with frames, or parts of frames, that ttrpc may see.
func (c *GuardedConn) judged(p []byte) (int, error) {
	in := &c.input
	for {
		n := 0
		if in.part != nil {
			n = copy(p, in.part.b)
			in.part.free()
			in.part = nil
		}
		if in.left == 0 && n < HeaderSize || n == 0 {
			if in.err != nil {
				c.giveShare()
				return 0, io.EOF
			}
			n += c.fill(p[n:], n > 0 || in.left > 0)
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
			in.part = newBuffer()
			in.part.b = append(in.part.b, p[used:n]...)
		}
		if w > 0 {
			return w, nil
		}
	}
}

// fill reads what has arrived into p, and notes the error if there is one.
func (c *GuardedConn) fill(p []byte, inFrame bool) int {
	in := &c.input
	c.mu.Lock()
	if c.out.writing {
		c.out.ahead += in.last
	}
	for c.out.writing && c.out.ahead >= maxReadAhead && c.out.ended() == nil {
		c.out.changed.Wait()
	}
	if in.done {
		c.unread, in.done = 0, false
	}
	if inFrame {
		c.inFrame = true
		c.out.arm()
	}
	c.mu.Unlock()
	in.last, in.err = c.conn.Read(p)
	if inFrame {
		c.mu.Lock()
		c.inFrame = false
		c.mu.Unlock()
	}
	return in.last
}

// sift moves what ttrpc may see to the front of p and returns its length. used is how much of p is dealt with; the
// rest is to be judged again, with what comes after it.
func (c *GuardedConn) sift(p []byte) (w, used int, err error) {
	in := &c.input
	for used < len(p) {
		n := min(in.left, len(p)-used)
		if n == 0 {
			h, ok := ParseHeader(p[used:])
			if !ok {
				return w, used, nil
			}
			if admitted, err := c.admit(h, w == 0); err != nil || !admitted {
				return w, used, err
			}
			n = HeaderSize
		} else {
			if in.frame.Type == TypeRequest && !in.skip {
				if err := c.request.feed(p[used : used+n]); err != nil {
					return w, used, err
				}
			}
			in.left -= n
		}
		if !in.skip {
			if w < used {
				copy(p[w:], p[used:used+n])
			}
			w += n
		}
		used += n
		if in.left == 0 {
			if err := c.finish(); err != nil {
				return w, used, err
			}
		}
	}
	return w, used, nil
}

// admit makes h the header of the current frame. A frame that has to wait waits if mayWait; else admit returns false,
// because ttrpc must have what came before it first.
func (c *GuardedConn) admit(h Header, mayWait bool) (bool, error) {
	large := h.Length >= largeFrame
	if large && !mayWait {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.judge.judge(h)
	for ; v == hold && err == nil; v, err = c.judge.judge(h) {
		if !mayWait {
			return false, nil
		}
		if c.out.ended() != nil {
			return false, io.EOF
		}
		c.atLimit = true
		c.out.arm()
		c.out.changed.Wait()
	}
	c.atLimit, c.full = false, 0
	if v == pass && err == nil && large {
		err = c.takeShare(int(h.Length))
	}
	if err != nil {
		return false, err
	}
	switch {
	case v == busy:
		c.refuseCall(h, codes.ResourceExhausted, "too many calls are open on this connection")
	case v == ending:
		c.refuseCall(h, codes.Unavailable, "server is shutting down")
	case h.Type == TypeRequest:
		c.request.reset(int(h.Length))
	}
	in := &c.input
	in.frame, in.left, in.skip = h, int(h.Length), v != pass
	return true, nil
}

// refuseCall answers in the place of ttrpc. It queues the answer, because the peer may not read before its own frames
// are read. mu is held.
func (c *GuardedConn) refuseCall(h Header, code codes.Code, message string) {
	b := refusal(h.StreamID, code, message)
	answer, _ := ParseHeader(b)
	_, _ = c.out.enqueue(&frame{Header: answer, tail: b}) // if it cannot be written, nobody waits for it
}

// takeShare waits until n more bytes may be received, without mu meanwhile. mu is held.
func (c *GuardedConn) takeShare(n int) error {
	c.mu.Unlock()
	ok := c.guard.receiving.take(n, c.ctx.Done())
	c.mu.Lock()
	if !ok {
		return io.EOF
	}
	if c.out.ended() != nil {
		c.guard.receiving.give(n)
		return io.EOF
	}
	c.share = n
	return nil
}

// giveShare gives back the share of the current frame.
func (c *GuardedConn) giveShare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guard.receiving.give(c.share)
	c.share = 0
}

// finish ends a frame all of which was read.
func (c *GuardedConn) finish() error {
	in := &c.input
	in.done = true
	if in.frame.Length >= largeFrame {
		c.giveShare()
	}
	if in.frame.Type != TypeRequest || in.skip {
		return nil
	}
	if err := c.request.finish(); err != nil {
		return err
	}
	if kind := c.request.kind(c.guard.methods); kind != unary {
		c.mu.Lock()
		c.judge.opened(in.frame.StreamID, kind)
		c.mu.Unlock()
	}
	return nil
}
