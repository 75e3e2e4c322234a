package wire

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// StreamContext returns a connection for a ttrpc.Client all of whose streams carry the metadata and the deadline of ctx,
// as ttrpc does it for unary calls only: https://github.com/containerd/ttrpc/issues/159. A connection cannot see whose
// stream a request opens, so streams with different contexts need a client each. It owns conn.
//
// What the streams carry is appended to their requests: an encoded message followed by another one of its type decodes
// to both of them merged, https://protobuf.dev/programming-guides/encoding/#last-one-wins. A request that has no room
// for it, because it is within a few bytes of MaxPayload, is an error, after which ttrpc.Client writes no more.
func StreamContext(ctx context.Context, conn net.Conn) net.Conn {
	return &streamContext{Conn: conn, ctx: ctx}
}

type streamContext struct {
	net.Conn
	ctx context.Context

	mu    sync.Mutex
	head  []byte // the start of a header of which Write has not got the rest
	left  int    // bytes of the current frame to come
	extra []byte // what the current frame gets at its end
}

// Write writes b, and behind each request that opens a stream what it carries.
func (c *streamContext) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := ParseHeader(b); ok && c.left == 0 && len(c.head) == 0 && !h.opensStream() && len(b) == HeaderSize+int(h.Length) {
		return c.Conn.Write(b)
	}
	out := make([]byte, 0, len(b)+256)
	for rest := b; len(rest) > 0; {
		if c.left == 0 {
			n := min(HeaderSize-len(c.head), len(rest))
			c.head, rest = append(c.head, rest[:n]...), rest[n:]
			h, ok := ParseHeader(c.head)
			if !ok {
				break
			}
			c.head = c.head[:0]
			c.left = int(h.Length)
			if h.opensStream() {
				var err error
				if c.extra, err = c.carried(); err != nil {
					return 0, err
				}
				if err := ttrpc.OversizedMessageError(c.left + len(c.extra)); err != nil {
					return 0, err
				}
				h.Length += uint32(len(c.extra))
			}
			out = h.Append(out)
		}
		n := min(c.left, len(rest))
		out, rest = append(out, rest[:n]...), rest[n:]
		if c.left -= n; c.left == 0 {
			out, c.extra = append(out, c.extra...), nil
		}
	}
	if len(out) > 0 {
		if _, err := c.Conn.Write(out); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// carried returns the fields of a ttrpc.Request that streams lack.
func (c *streamContext) carried() ([]byte, error) {
	var r ttrpc.Request
	if deadline, ok := c.ctx.Deadline(); ok {
		r.TimeoutNano = time.Until(deadline).Nanoseconds()
	}
	md, _ := ttrpc.GetMetadata(c.ctx)
	for key, values := range md {
		for _, value := range values {
			r.Metadata = append(r.Metadata, &ttrpc.KeyValue{Key: key, Value: value})
		}
	}
	return proto.Marshal(&r)
}

// opensStream reports whether a client that sends h opens a stream. The request of a unary call has no flags.
func (h Header) opensStream() bool {
	return h.Type == TypeRequest && h.Flags&(FlagRemoteOpen|FlagRemoteClosed) != 0
}
