package wire

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// frame is a whole frame, in two parts if it was written so.
type frame struct {
	Header
	head, tail []byte
	part       *buffer       // backs head
	made       time.Duration // clock when a client wrote it, if it is a request
}

var start = time.Now()

// clock returns the time since some moment, at half the price of time.Now.
func clock() time.Duration { return time.Since(start) }

func (f *frame) size() int { return len(f.head) + len(f.tail) }

// payload returns what follows the header. It copies if the frame is in two parts.
func (f *frame) payload() []byte {
	if len(f.head) > 0 {
		return slices.Concat(f.head, f.tail)[HeaderSize:]
	}
	return f.tail[HeaderSize:]
}

// timeout returns the timeout of f, a request as ttrpc encodes it: field 4, after the fields that are longer. Zero
// means none.
func (f *frame) timeout() time.Duration {
	b, rest := f.head, f.tail
	if len(b) == 0 {
		b, rest = f.tail, nil
	}
	for b = b[HeaderSize:]; ; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0
		}
		value, m := protowire.ConsumeVarint(b[n:])
		switch {
		case m < 0 || value > MaxPayload && typ == protowire.BytesType:
			return 0
		case typ == protowire.VarintType && num == 4:
			return time.Duration(value)
		case typ != protowire.BytesType:
			return 0
		}
		if n += m + int(value); n >= len(b) {
			b, rest, n = rest, nil, n-len(b)
		}
		b = b[min(n, len(b)):]
	}
}

// hasStatus reports whether f, a response of ttrpc, has a status, and so no message.
func (f *frame) hasStatus() bool {
	const messageTag = 2<<3 | 2 // of ttrpc.Response
	b := f.head
	if len(b) == 0 {
		b = f.tail
	}
	return len(b) <= HeaderSize || b[HeaderSize] != messageTag
}

// setRequest makes r the payload. It must not be longer than the one before: a request that ttrpc has encoded is not,
// after a number in it got less or text got shorter.
func (f *frame) setRequest(r *ttrpc.Request) {
	if payload, err := proto.Marshal(r); err == nil && len(payload) <= int(f.Length) {
		f.Length = uint32(len(payload))
		f.head, f.tail = nil, AppendFrame(nil, f.Header, payload)
	}
}

// cutter cuts what is written into frames. ttrpc gives each frame a Write of its own or, if it is too long for its
// bufio.Writer, two: the first 4096 bytes and the rest. Only the former are copied. The zero value is ready to use.
type cutter struct {
	part *buffer // the start of a frame; nil between frames
}

// next returns the first frame that ends in b, or one of size 0 if none does, and how many bytes of b were used. The
// frame is in b and in a buffer, which it owns.
func (c *cutter) next(b []byte) (f frame, n int, err error) {
	part := c.part
	if part == nil {
		if h, ok := ParseHeader(b); ok && h.Length <= MaxPayload && len(b) >= HeaderSize+int(h.Length) {
			n = HeaderSize + int(h.Length)
			return frame{Header: h, tail: b[:n]}, n, nil
		}
		part = newBuffer()
		c.part = part
	}
	if len(part.b) < HeaderSize {
		n = min(HeaderSize-len(part.b), len(b))
		part.b = append(part.b, b[:n]...)
	}
	h, ok := ParseHeader(part.b)
	if !ok {
		return frame{}, n, nil
	}
	if h.Length > MaxPayload {
		return frame{}, 0, fmt.Errorf("write frame: payload of %d bytes is over the limit of %d", h.Length, MaxPayload)
	}
	missing := HeaderSize + int(h.Length) - len(part.b)
	if missing > len(b)-n {
		part.b = append(part.b, b[n:]...)
		return frame{}, len(b), nil
	}
	c.part = nil
	return frame{Header: h, head: part.b, part: part, tail: b[n : n+missing]}, n + missing, nil
}

// each calls do with each frame that ends in b, and frees it. It returns how many bytes of b were used.
func (c *cutter) each(b []byte, do func(frame) error) (n int, err error) {
	for n < len(b) {
		f, used, err := c.next(b[n:])
		if err == nil && f.size() > 0 {
			err = do(f)
			f.part.free()
		}
		if err != nil {
			return n, err
		}
		n += used
	}
	return n, nil
}

// buffer is a pooled byte slice, so that an idle connection holds none. It has whole frames or the start of one.
type buffer struct {
	b    []byte
	made []time.Duration // frame.made of the requests in b
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, ttrpcBuffer)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// free gives the buffer back. It does nothing for nil.
func (b *buffer) free() {
	if b != nil {
		b.b, b.made = b.b[:0], b.made[:0]
		buffers.Put(b)
	}
}

// bytes returns what is in b, which may be nil.
func (b *buffer) bytes() []byte {
	if b == nil {
		return nil
	}
	return b.b
}

// push appends a copy of f.
func (b *buffer) push(f *frame) {
	b.b = append(append(b.b, f.head...), f.tail...)
	if f.Type == TypeRequest {
		b.made = append(b.made, f.made)
	}
}

// filter keeps the frames that keep wants. It may change them if that makes them no longer.
func (b *buffer) filter(keep func(*frame) bool) {
	rest, made := b.b, b.made
	b.b, b.made = b.b[:0], b.made[:0]
	for len(rest) > 0 {
		h, _ := ParseHeader(rest)
		f := frame{Header: h, tail: rest[:HeaderSize+h.Length]}
		rest = rest[f.size():]
		if h.Type == TypeRequest {
			f.made, made = made[0], made[1:]
		}
		if keep(&f) {
			b.push(&f)
		}
	}
}
