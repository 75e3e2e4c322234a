// Package frame is the least that a message needs on a socket: how long it is and which one it is.
package frame

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
)

const head = 4 + 8 // the payload's length, and the id

// Conn reads and writes messages, each with as few system calls and copies as a connection of package net can. One
// goroutine may read while another one writes.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	back []byte
}

// NewConn returns a Conn over c, which it owns from then on.
func NewConn(c net.Conn) *Conn { return &Conn{conn: c, in: bufio.NewReader(c)} }

// Write writes one message.
func (c *Conn) Write(id uint64, payload []byte) error {
	c.out = binary.BigEndian.AppendUint32(c.out[:0], uint32(len(payload)))
	c.out = binary.BigEndian.AppendUint64(c.out, id)
	c.out = append(c.out, payload...)
	_, err := c.conn.Write(c.out)
	return err
}

// Read reads one message. The payload is the caller's until the next Read.
func (c *Conn) Read() (id uint64, payload []byte, err error) {
	var h [head]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(h[:]))
	if n > cap(c.back) {
		c.back = make([]byte, n)
	}
	_, err = io.ReadFull(c.in, c.back[:n])
	return binary.BigEndian.Uint64(h[4:]), c.back[:n], err
}

// CloseWrite ends what the other side reads.
func (c *Conn) CloseWrite() error { return c.conn.(interface{ CloseWrite() error }).CloseWrite() }

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }
