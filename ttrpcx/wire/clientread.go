package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// reader is what the reading half of a ClientConn keeps from one Read to the next.
type reader struct {
	conn   net.Conn // that is read; nil once it is lost
	proven bool     // a frame was read from conn
	part   *buffer  // the start of a frame; nil between frames
	ready  []byte   // what is handed out next
	backs  *[]byte  // backs ready, if it comes from large
	long   int64    // bytes still to come of a frame that is over MaxPayload
	yields bool     // callers have got answers since the last read
}

// Read hands out what the server sent and the answers to the calls that it can no longer answer. It returns
// net.ErrClosed once the ClientConn is closed and no other error, ever: ttrpc.Client gives up at the first one.
//
// Frames are handed out whole or not at all: ttrpc.Client waits for the rest of a frame that it has begun to read, so
// no other answer could follow half a frame.
func (c *ClientConn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for r := &c.reader; ; {
		n := 0
		switch {
		case len(r.ready) > 0:
			n = copy(p, r.ready)
			if r.ready = r.ready[n:]; len(r.ready) == 0 {
				r.recycle()
			}
		case r.long > 0:
			n = c.passLong(p)
		case r.conn != nil:
			n = c.fill(p)
		case !c.await():
			return 0, net.ErrClosed
		}
		if n > 0 {
			return n, nil
		}
	}
}

// await waits for something to read: answers, or a connection. It returns false if the ClientConn is closed.
func (c *ClientConn) await() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.out.closed && len(c.answers) == 0 && c.out.conn == nil {
		c.out.changed.Wait()
	}
	switch {
	case c.out.closed:
		return false
	case len(c.answers) > 0:
		c.reader.ready, c.answers = c.answers, nil
	default:
		c.reader.conn, c.reader.proven = c.out.conn, false
	}
	return true
}

// passLong hands out a part of a frame that is over MaxPayload. ttrpc.Client throws such a payload away and fails the
// call. So nobody misses what the connection loses of it, and it need not be held back until it is whole.
func (c *ClientConn) passLong(p []byte) (n int) {
	r := &c.reader
	p = p[:min(int64(len(p)), r.long)]
	if r.conn == nil {
		clear(p)
		n = len(p)
	} else if c.starts() {
		var err error
		n, err = (*countingReader)(c).Read(p)
		c.mu.Lock()
		err = c.stops(err)
		c.mu.Unlock()
		if err != nil {
			c.end(err)
		}
	}
	r.long -= int64(n)
	return n
}

// large has buffers for what does not fit into p, for whichever connection needs one next. They have minLarge bytes at
// least, so that there are not too many kinds. Collections empty it.
var large sync.Pool // of *[]byte

const minLarge = 64 << 10

// recycle gives back what backs ready.
func (r *reader) recycle() {
	if r.ready = nil; r.backs != nil {
		large.Put(r.backs)
		r.backs = nil
	}
}

// fill reads once, or until the frame that was begun is whole. It returns the length of the whole frames that are in p
// then, or makes them ready if they do not fit.
func (c *ClientConn) fill(p []byte) int {
	r := &c.reader
	if !c.starts() {
		return 0
	}
	have, missing, room := 0, 1, ttrpcBuffer
	if r.part != nil {
		have = len(r.part.b)
		if h, ok := ParseHeader(r.part.b); ok {
			missing = HeaderSize + int(h.Length) - have
			room = max(room, have+missing)
		}
	}
	if room > len(p) {
		b, ok := large.Get().(*[]byte)
		if !ok || cap(*b) < room {
			fresh := make([]byte, max(room, minLarge))
			b = &fresh
		}
		p, r.backs = *b, b
	}
	p = p[:room]
	if have > 0 {
		copy(p, r.part.b)
		r.part.free()
		r.part = nil
	}
	if r.yields {
		r.yields = false
		runtime.Gosched() // their next requests go first: nothing may have come meanwhile
	}
	n, err := io.ReadAtLeast((*countingReader)(c), p[have:], missing)
	c.mu.Lock()
	err = c.stops(err)
	p, whole, bad := c.scan(p[:have+n])
	c.mu.Unlock()
	if whole < len(p) {
		r.part = newBuffer()
		r.part.b = append(r.part.b, p[whole:]...)
	}
	if bad != nil {
		err = bad
	}
	if err != nil {
		c.end(err)
	}
	if r.backs == nil {
		return whole
	}
	if r.ready = p[:whole]; whole == 0 {
		r.recycle()
	}
	return 0
}

// scan returns the length of the whole frames in b and marks the calls that they end. It returns an error for bytes
// that are no frames. It takes the answers to the ClientConn's own requests out of b, and returns the rest. mu is held.
func (c *ClientConn) scan(b []byte) (rest []byte, whole int, err error) {
	for {
		h, ok := ParseHeader(b[whole:])
		if !ok {
			return b, whole, nil
		}
		if h.Type < TypeRequest || h.Type > TypeData {
			return b, whole, fmt.Errorf("read from server: frame type %d is none of ttrpc's", h.Type)
		}
		missing := HeaderSize + int64(h.Length) - int64(len(b)-whole)
		switch {
		case missing <= 0 && h.StreamID == keepAliveID && c.alive.asked > 0:
			c.alive.asked--
			b = slices.Delete(b, whole, whole+HeaderSize+int(h.Length))
			continue
		case missing <= 0:
			whole += HeaderSize + int(h.Length)
		case h.Length <= MaxPayload:
			return b, whole, nil
		default:
			c.reader.long = missing
			whole = len(b)
		}
		c.reader.proven = true
		if h.closes() {
			c.calls.remove(h.StreamID)
			c.reader.yields = true
			if h.Flags&FlagStopping != 0 {
				c.refused = min(c.refused, h.StreamID)
			}
		}
	}
}

// starts notes that a read is about to wait. If there are answers already, it makes them ready and returns false,
// unless half a frame was handed out.
func (c *ClientConn) starts() bool {
	r := &c.reader
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) > 0 && r.long == 0 {
		r.ready, c.answers = c.answers, nil
		return false
	}
	c.reading, c.woken = r.long == 0, false
	return true
}

// stops notes that a read has ended. It returns the read's error, but for one that interrupt made. mu is held.
func (c *ClientConn) stops(err error) error {
	c.reading = false
	if !c.woken {
		return err
	}
	deadline := time.Time{}
	if c.out.err != nil {
		deadline = time.Now().Add(linger) // as writeLost has set it
	}
	if set := c.reader.conn.SetReadDeadline(deadline); errors.Is(err, os.ErrDeadlineExceeded) {
		err = set
	}
	return err
}

// interrupt ends a read that waits, because there are answers that the server will not send. mu is held.
func (c *ClientConn) interrupt() {
	if c.reading && !c.woken {
		c.woken = c.reader.conn.SetReadDeadline(time.Unix(1, 0)) == nil
	}
}

// end drops a connection that cannot be read any further.
func (c *ClientConn) end(err error) {
	r := &c.reader
	conn := r.conn
	r.part.free()
	r.part, r.conn = nil, nil
	c.lose(conn, err, r.proven)
}
