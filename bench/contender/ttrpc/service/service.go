// Package service is what all ttrpc servers serve, the stock one and ours.
package service

import (
	"context"

	"github.com/containerd/ttrpc"

	benchv1 "example.com/ttrpc-starter/bench/gen/ttrpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/server"
)

// New returns a ttrpc server that serves h.
func New(h *server.Handler) (*ttrpc.Server, error) {
	s, err := ttrpc.NewServer()
	if err != nil {
		return nil, err
	}
	benchv1.RegisterBenchService(s, Of(h))
	return s, nil
}

// Of returns the service that h serves.
func Of(h *server.Handler) benchv1.BenchService { return &bench{h} }

type bench struct{ h *server.Handler }

func (b *bench) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

func (b *bench) Stream(_ context.Context, stream benchv1.Bench_StreamServer) error {
	return server.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func (b *bench) Hold(ctx context.Context, _ *benchv1.HoldRequest) (*benchv1.HoldResponse, error) {
	return &benchv1.HoldResponse{}, b.h.Hold(ctx)
}
