// Package ttrpcecho is how all ttrpc contenders serve and call.
package ttrpcecho

import (
	"context"
	"net"

	"github.com/containerd/ttrpc"

	benchv1 "example.com/ttrpc-starter/bench/gen/ttrpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/worker"
)

// NewServer returns a server that echoes.
func NewServer() (*ttrpc.Server, error) {
	s, err := ttrpc.NewServer()
	if err == nil {
		benchv1.RegisterBenchService(s, Service{})
	}
	return s, err
}

// Service echoes.
type Service struct{}

// Echo returns the request.
func (Service) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	worker.Handle()
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

// Stream returns each request.
func (Service) Stream(_ context.Context, stream benchv1.Bench_StreamServer) error {
	return worker.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

// NewConn returns a client over conn.
func NewConn(conn net.Conn) worker.Conn {
	c := ttrpc.NewClient(conn)
	return &client{c, benchv1.NewBenchClient(c)}
}

type client struct {
	*ttrpc.Client
	bench benchv1.BenchClient
}

func (c *client) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, &benchv1.EchoRequest{Id: id, Payload: payload})
	return resp.GetId(), resp.GetPayload(), err
}

func (c *client) Stream(ctx context.Context) (worker.Stream, error) {
	s, err := c.bench.Stream(ctx)
	return stream{s}, err
}

type stream struct{ benchv1.Bench_StreamClient }

func (s stream) Send(id uint64, payload []byte) error {
	return s.Bench_StreamClient.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.Bench_StreamClient.Recv()
	return resp.GetId(), resp.GetPayload(), err
}
