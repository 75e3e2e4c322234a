package wire

import (
	"net"
	"sync"
)

// Expand returns a connection that understands the names which StreamMethod makes and is otherwise conn, which it owns.
// It is for a client that is to end with its connection; a ClientConn needs none.
func Expand(conn net.Conn) net.Conn { return &expandConn{Conn: conn} }

type expandConn struct {
	net.Conn
	mu  sync.Mutex
	cut cutter
}

// Write writes the frames that are whole, and keeps the start of one that is not.
func (c *expandConn) Write(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		f, used, err := c.cut.next(p[n:])
		if err != nil {
			return n, err
		}
		n += used
		if f.size() == 0 {
			continue
		}
		if f.Type == TypeRequest {
			expand(&f)
		}
		parts := net.Buffers{f.head, f.tail}
		_, err = parts.WriteTo(c.Conn)
		f.part.free()
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
