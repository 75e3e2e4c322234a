// Drpc-client is a drpc client. A connection of drpc takes one call at a time, so it has drpc's pool of them.
package main

import (
	"context"
	"errors"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcpool"

	benchv1 "example.com/ttrpc-starter/bench/gen/drpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	pool := drpcpool.New[endpoint.Endpoint, drpcpool.Conn](drpcpool.Options{})
	conn := pool.Get(ctx, e, func(ctx context.Context, e endpoint.Endpoint) (drpcpool.Conn, error) {
		conn, err := e.Dial(ctx)
		if err != nil {
			return nil, err
		}
		return drpcconn.New(conn), nil
	})
	return &caller{pool, conn, benchv1.NewDRPCBenchClient(conn)}, nil
}

type caller struct {
	pool  *drpcpool.Pool[endpoint.Endpoint, drpcpool.Conn]
	conn  drpc.Conn
	bench benchv1.DRPCBenchClient
}

func (c *caller) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, &benchv1.EchoRequest{Id: id, Payload: payload})
	return resp.GetId(), resp.GetPayload(), err
}

func (c *caller) Stream(ctx context.Context) (client.Stream, error) {
	s, err := c.bench.Stream(ctx)
	return stream{s}, err
}

func (c *caller) Hold(context.Context) error { return client.OneCall("drpc") }

func (c *caller) Close() error { return errors.Join(c.conn.Close(), c.pool.Close()) }

type stream struct{ benchv1.DRPCBench_StreamClient }

func (s stream) Send(id uint64, payload []byte) error {
	return s.DRPCBench_StreamClient.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.DRPCBench_StreamClient.Recv()
	return resp.GetId(), resp.GetPayload(), err
}
