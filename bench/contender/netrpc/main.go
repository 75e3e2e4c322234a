// Netrpc is the standard library's net/rpc.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"

	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

// Message is both request and response of Bench.Echo.
type Message struct {
	ID      uint64
	Payload []byte
}

// Bench is the service: net/rpc takes its name, and its methods, from the type.
type Bench struct{}

// Echo returns the request.
func (Bench) Echo(req *Message, resp *Message) error {
	*resp = *req
	return nil
}

func serve(ctx context.Context, socket string) error {
	s := rpc.NewServer()
	if err := s.Register(Bench{}); err != nil {
		return err
	}
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go s.ServeConn(conn)
	}
}

func dial(ctx context.Context, socket string) (worker.Conn, error) {
	conn, err := worker.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return &client{rpc.NewClient(conn)}, nil
}

type client struct{ *rpc.Client }

func (c *client) Echo(_ context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	var resp Message
	err := c.Call("Bench.Echo", &Message{ID: id, Payload: payload}, &resp)
	return resp.ID, resp.Payload, err
}

func (c *client) Stream(context.Context) (worker.Stream, error) {
	return nil, fmt.Errorf("%w: net/rpc has no streams", errors.ErrUnsupported)
}
