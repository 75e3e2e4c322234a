// Starter-grpc-client calls starter-grpc-server.
package main

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	examplev1 "example.com/ttrpc-starter/bench/gen/grpc/example/v1"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(_ context.Context, e endpoint.Endpoint) (client.Conn, error) {
	conn, err := grpc.NewClient(e.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &caller{conn, examplev1.NewExampleClient(conn)}, nil
}

type caller struct {
	conn    *grpc.ClientConn
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
func (c *caller) Close() error                                  { return c.conn.Close() }
