package wire

import (
	"fmt"
	"net"
	"sync"
)

// reader is what the reading half of a ClientConn keeps from one Read to the next.
type reader struct {
	conn   net.Conn // that is read; nil once it is lost
	proven bool     // a frame was read from conn
	part   *buffer  // the start of a frame; nil between frames
	ready  []byte   // what is handed out next
	large  *[]byte  // backs ready, if it has a large frame
	long   int64    // bytes still to come of a frame that is over MaxPayload
	pad    int64    // bytes that such a frame lacks because its connection was lost
}

// Read hands out what the server sent and the answers to the calls that it can no longer answer. It returns
// net.ErrClosed once the ClientConn is closed and no other error, ever: ttrpc.Client gives up at the first one.
//
// Frames are handed out whole or not at all: ttrpc.Client waits for the rest of a frame that it has begun to read, so
// no other answer could follow half a frame.
func (c *ClientConn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	r := &c.reader
	for {
		switch {
		case len(r.ready) > 0:
			n := copy(p, r.ready)
			r.handedOut(n)
			return n, nil
		case r.pad > 0:
			n := int(min(r.pad, int64(len(p))))
			clear(p[:n])
			r.pad -= int64(n)
			return n, nil
		case r.conn == nil:
			if !c.await() {
				return 0, net.ErrClosed
			}
		case len(p) < ttrpcBuffer:
			b := make([]byte, ttrpcBuffer)
			if n := c.fill(b); n > 0 {
				r.ready = b[:n]
			}
		default:
			if n := c.fill(p[:ttrpcBuffer]); n > 0 {
				return n, nil
			}
		}
	}
}

// handedOut notes that the first n bytes of ready are not needed any more.
func (r *reader) handedOut(n int) {
	if r.ready = r.ready[n:]; len(r.ready) == 0 {
		r.ready = nil
		if r.large != nil {
			large.Put(r.large)
			r.large = nil
		}
	}
}

// await waits for something to read: answers, or a connection. It returns false if the ClientConn is closed.
func (c *ClientConn) await() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.out.closed:
			return false
		case len(c.answers) > 0:
			c.reader.ready, c.answers = c.answers, nil
			return true
		case c.out.conn != nil:
			c.reader.conn, c.reader.proven = c.out.conn, false
			return true
		}
		c.out.changed.Wait()
	}
}

// fill reads from the connection into p, of length ttrpcBuffer, and returns the length of the whole frames in it.
func (c *ClientConn) fill(p []byte) int {
	r := &c.reader
	have := 0
	if r.part != nil {
		have = copy(p, r.part.b)
		r.part.free()
		r.part = nil
		if h, ok := ParseHeader(p[:have]); ok && HeaderSize+int(h.Length) > len(p) {
			c.fillLarge(p[:have], HeaderSize+int(h.Length))
			return 0
		}
	}
	n, err := r.conn.Read(p[have:])
	p = p[:have+n]
	whole, bad := c.scan(p)
	if rest := p[whole:]; len(rest) > 0 {
		r.part = newBuffer()
		r.part.b = append(r.part.b, rest...)
	}
	if bad != nil {
		err = bad
	}
	if err != nil {
		c.end(err)
	}
	return whole
}

// large has buffers for frames that are longer than a read, for whichever connection needs one next. Collections empty
// it.
var large sync.Pool // of *[]byte

// minLarge is the least length in bytes of such a buffer, so that there are not too many kinds.
const minLarge = 64 << 10

// fillLarge reads a frame of size bytes, which starts with start, and makes it ready.
func (c *ClientConn) fillLarge(start []byte, size int) {
	r := &c.reader
	b, ok := large.Get().(*[]byte)
	if !ok || cap(*b) < size {
		fresh := make([]byte, max(size, minLarge))
		b = &fresh
	}
	frame := (*b)[:size]
	n := copy(frame, start)
	for n < size {
		m, err := r.conn.Read(frame[n:])
		if n += m; err != nil && n < size {
			large.Put(b)
			c.end(err)
			return
		}
	}
	_, _ = c.scan(frame)
	r.ready, r.large = frame, b
}

// scan returns the length of the whole frames in b and marks the calls that they end. It returns an error for bytes that
// are no frames.
func (c *ClientConn) scan(b []byte) (whole int, err error) {
	r := &c.reader
	if r.long > 0 {
		whole = int(min(r.long, int64(len(b))))
		r.long -= int64(whole)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		h, ok := ParseHeader(b[whole:])
		if !ok {
			return whole, nil
		}
		if h.Type < TypeRequest || h.Type > TypeData {
			return whole, fmt.Errorf("read from server: frame type %d is none of ttrpc's", h.Type)
		}
		missing := HeaderSize + int64(h.Length) - int64(len(b)-whole)
		switch {
		case missing <= 0:
			whole += HeaderSize + int(h.Length)
		case h.Length <= MaxPayload:
			return whole, nil
		default:
			// ttrpc.Client throws this payload away and fails the call. So nobody misses the end of it if the connection
			// is lost, and there is no need to hold the frame back until it is whole.
			r.long = missing
			whole = len(b)
		}
		r.proven = true
		if h.closes() {
			c.calls.remove(h.StreamID)
		}
	}
}

// end drops a connection that cannot be read any further.
func (c *ClientConn) end(err error) {
	r := &c.reader
	conn := r.conn
	r.part.free()
	r.part, r.conn = nil, nil
	r.pad, r.long = r.long, 0
	c.lose(conn, err, r.proven)
}
