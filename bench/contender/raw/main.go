// Raw sends messages over a socket and back, with a connection for each caller: no calls, no code generated, the least
// that can be done.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			s := newStream(conn)
			_ = worker.EchoStream(s.recv, func(m message) error { return s.Send(m.id, m.payload) })
		}()
	}
}

func dial(_ context.Context, socket string) (worker.Conn, error) {
	return &client{socket: socket, streams: map[uint64]*stream{}}, nil
}

type client struct {
	socket  string
	mu      sync.Mutex
	streams map[uint64]*stream // by caller
}

func (c *client) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	c.mu.Lock()
	s := c.streams[worker.Caller(id)]
	if s == nil {
		conn, err := worker.Dial(ctx, c.socket)
		if err != nil {
			c.mu.Unlock()
			return 0, nil, err
		}
		s = newStream(conn)
		c.streams[worker.Caller(id)] = s
	}
	c.mu.Unlock()
	if err := s.Send(id, payload); err != nil {
		return 0, nil, err
	}
	return s.Recv()
}

func (c *client) Stream(ctx context.Context) (worker.Stream, error) {
	conn, err := worker.Dial(ctx, c.socket)
	if err != nil {
		return nil, err
	}
	return newStream(conn), nil
}

func (c *client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, s := range c.streams {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// head is the least that a message needs on a socket: how long it is and which one it is.
const head = 4 + 8

type message struct {
	id      uint64
	payload []byte
}

// stream reads and writes messages, each with as few system calls and copies as a connection of package net can. One
// goroutine may read while another one writes.
type stream struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	back []byte
}

func newStream(c net.Conn) *stream { return &stream{conn: c, in: bufio.NewReader(c)} }

func (s *stream) Send(id uint64, payload []byte) error {
	s.out = binary.BigEndian.AppendUint32(s.out[:0], uint32(len(payload)))
	s.out = binary.BigEndian.AppendUint64(s.out, id)
	s.out = append(s.out, payload...)
	_, err := s.conn.Write(s.out)
	return err
}

// recv reads one message. The payload is the caller's until the next one.
func (s *stream) recv() (message, error) {
	var h [head]byte
	if _, err := io.ReadFull(s.in, h[:]); err != nil {
		return message{}, err
	}
	n := int(binary.BigEndian.Uint32(h[:]))
	if n > cap(s.back) {
		s.back = make([]byte, n)
	}
	_, err := io.ReadFull(s.in, s.back[:n])
	return message{binary.BigEndian.Uint64(h[4:]), s.back[:n]}, err
}

func (s *stream) Recv() (uint64, []byte, error) {
	m, err := s.recv()
	return m.id, m.payload, err
}

func (s *stream) CloseSend() error { return s.conn.Close() }
