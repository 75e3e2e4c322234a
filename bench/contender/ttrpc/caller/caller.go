// Package caller is how all ttrpc clients call, the stock one and ours.
package caller

import (
	"context"
	"io"
	"net"

	"github.com/containerd/ttrpc"

	benchv1 "example.com/ttrpc-starter/bench/gen/ttrpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/client"
)

// New returns a client that calls over conn.
func New(conn net.Conn) client.Conn {
	c := ttrpc.NewClient(conn)
	return Of(benchv1.NewBenchClient(c), c)
}

// Of returns a client that calls bench, and closes c in the end.
func Of(bench benchv1.BenchClient, c io.Closer) client.Conn { return &caller{c, bench} }

type caller struct {
	io.Closer
	bench benchv1.BenchClient
}

func (c *caller) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, &benchv1.EchoRequest{Id: id, Payload: payload})
	return resp.GetId(), resp.GetPayload(), err
}

func (c *caller) Stream(ctx context.Context) (client.Stream, error) {
	s, err := c.bench.Stream(ctx)
	return stream{s}, err
}

func (c *caller) Hold(ctx context.Context) error {
	_, err := c.bench.Hold(ctx, &benchv1.HoldRequest{})
	return err
}

type stream struct{ benchv1.Bench_StreamClient }

func (s stream) Send(id uint64, payload []byte) error {
	return s.Bench_StreamClient.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.Bench_StreamClient.Recv()
	return resp.GetId(), resp.GetPayload(), err
}
