// Raw-client sends a message and waits until it comes back, on a connection for each caller.
package main

import (
	"context"
	"errors"
	"sync"

	"example.com/ttrpc-starter/bench/contender/raw/frame"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(_ context.Context, e endpoint.Endpoint) (client.Conn, error) {
	return &caller{endpoint: e, conns: map[uint64]*frame.Conn{}}, nil
}

type caller struct {
	endpoint endpoint.Endpoint
	mu       sync.Mutex
	conns    map[uint64]*frame.Conn // by caller
}

func (c *caller) conn(ctx context.Context, id uint64) (*frame.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conns[client.Caller(id)]
	if conn == nil {
		plain, err := c.endpoint.Dial(ctx)
		if err != nil {
			return nil, err
		}
		conn = frame.NewConn(plain)
		c.conns[client.Caller(id)] = conn
	}
	return conn, nil
}

func (c *caller) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	conn, err := c.conn(ctx, id)
	if err != nil {
		return 0, nil, err
	}
	if err := conn.Write(id, payload); err != nil {
		return 0, nil, err
	}
	return conn.Read()
}

func (c *caller) Stream(ctx context.Context) (client.Stream, error) {
	conn, err := c.endpoint.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return stream{frame.NewConn(conn)}, nil
}

func (c *caller) Hold(context.Context) error { return client.OneCall("raw") }

func (c *caller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

type stream struct{ conn *frame.Conn }

func (s stream) Send(id uint64, payload []byte) error { return s.conn.Write(id, payload) }
func (s stream) Recv() (uint64, []byte, error)        { return s.conn.Read() }
func (s stream) CloseSend() error                     { return s.conn.CloseWrite() }
