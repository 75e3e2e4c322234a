// Starter-client calls the starter's own server.
package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	conn, err := ttrpcx.Dial(ctx, ttrpcx.ClientOptions{Address: e.Address})
	if err != nil {
		return nil, err
	}
	c := ttrpc.NewClient(conn)
	return &caller{c, examplev1.NewExampleClient(c)}, nil
}

type caller struct {
	client  *ttrpc.Client
	example examplev1.ExampleClient
}

func (c *caller) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.example.Method1(ctx, &examplev1.Method1Request{Foo: strconv.FormatUint(id, 10), Bar: string(payload)})
	if err != nil {
		return 0, nil, err
	}
	id, err = strconv.ParseUint(resp.GetFoo(), 10, 64)
	return id, []byte(resp.GetBar()), err
}

func (c *caller) Stream(context.Context) (client.Stream, error) { return nil, errors.ErrUnsupported }
func (c *caller) Hold(context.Context) error                    { return errors.ErrUnsupported }
func (c *caller) Close() error                                  { return c.client.Close() }
