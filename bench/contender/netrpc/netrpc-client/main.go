// Netrpc-client is a client of the standard library's net/rpc.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"

	"example.com/ttrpc-starter/bench/contender/netrpc/bench"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	conn, err := e.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &caller{rpc.NewClient(conn)}, nil
}

type caller struct{ client *rpc.Client }

func (c *caller) Echo(_ context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	var resp bench.Message
	err := c.client.Call("Bench.Echo", &bench.Message{ID: id, Payload: payload}, &resp)
	return resp.ID, resp.Payload, err
}

func (c *caller) Stream(context.Context) (client.Stream, error) {
	return nil, fmt.Errorf("%w: net/rpc has no streams", errors.ErrUnsupported)
}

func (c *caller) Hold(context.Context) error {
	return c.client.Call("Bench.Hold", bench.None{}, &bench.None{})
}

func (c *caller) Close() error { return c.client.Close() }
