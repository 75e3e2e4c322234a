package wire

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// keepAliveID is the stream id of a request that only asks for an answer. ttrpc.Client has odd ids, and a server
// answers any other with InvalidArgument before it looks at the request. So it need not be higher than those before.
const keepAliveID = 0

// keepAlive finds out that a server has gone, although the connection to it is open. Its owner's mu guards it.
type keepAlive struct {
	interval time.Duration // of silence; zero for none
	armed    bool          // look will be called
	arrived  atomic.Uint32 // counts the reads that brought something, without mu
	seen     uint32        // of arrived, at the last tick
	quiet    int           // ticks without anything from the server
	asked    int           // requests with keepAliveID that were not answered
}

// watch sees to it that look is called while calls are open. mu is held.
func (c *ClientConn) watch() {
	k := &c.alive
	if k.interval <= 0 || k.armed || c.calls.n == 0 || c.out.ended() != nil {
		return
	}
	k.armed = true
	time.AfterFunc(k.interval/ticksPerTimeout, c.look)
}

// look asks a server that has been silent for an interval whether it lives, and gives the connection up if that brings
// nothing for another one. While something waits to be written, that is for the IOTimeout to do: a server that takes
// bytes lives.
func (c *ClientConn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := &c.alive
	k.armed = false
	arrived := k.arrived.Load()
	if arrived != k.seen || c.calls.n == 0 || c.out.ended() != nil || c.out.pending() {
		k.seen, k.quiet = arrived, 0
	}
	switch k.quiet++; k.quiet {
	case 2*ticksPerTimeout + 2:
		c.out.fail(fmt.Errorf("read from server: nothing came for %v: %w", 2*k.interval, os.ErrDeadlineExceeded))
		go c.out.conn.Close() // closing can block
	case ticksPerTimeout + 1:
		k.asked++
		h := Header{StreamID: keepAliveID, Type: TypeRequest}
		_, _ = c.out.enqueue(&frame{Header: h, tail: h.Append(nil)}) // the queue is empty
	}
	c.watch()
}

// countingReader counts what arrives.
type countingReader ClientConn

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.reader.conn.Read(p)
	if n > 0 {
		c.alive.arrived.Add(1)
	}
	return n, err
}
