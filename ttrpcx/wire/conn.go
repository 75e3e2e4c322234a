package wire

import (
	"net"
	"time"
)

// Options configure a Conn.
type Options struct {
	// IOTimeout is how long the peer may take nothing of what is written before the connection is closed. It is kept to
	// within a quarter of itself. Default 30 s.
	IOTimeout time.Duration
}

// Conn is a client's connection that gathers the frames that concurrent calls write into fewer system calls. Reads pass
// through. It changes no byte, so the server needs no Conn of its own; bytes that are no ttrpc frames also pass,
// ungathered.
//
// Idle, it keeps no goroutine and no buffer.
type Conn struct {
	gather
	read tracker // guarded by mu
	open int     // calls that the server has not closed yet; never below 0, though ttrpc answers some twice
}

var _ net.Conn = (*Conn)(nil)

// NewConn returns a Conn over c, which it owns from then on.
func NewConn(c net.Conn, o Options) *Conn {
	conn := new(Conn)
	conn.init(c, o.IOTimeout, conn)
	return conn
}

// Read reads from the connection underneath.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.inner.Read(p)
	if n > 0 {
		c.mu.Lock()
		for rest := p[:n]; !c.raw; {
			h, r, ok := c.read.next(rest)
			if !ok {
				break
			}
			if h.closes() && c.open > 0 {
				c.open--
			}
			rest = r
		}
		c.mu.Unlock()
	}
	return n, err
}

func (c *Conn) wrote(h Header, _ []byte) {
	if h.Type == TypeRequest {
		c.open++
	}
	c.others = max(c.open-1, 0)
}

func (c *Conn) check() (watch bool, err error) { return false, nil }
func (c *Conn) progressed()                    {}
func (c *Conn) readsAnswers() bool             { return true }
func (c *Conn) cutOff(error)                   {}
