// Package service is what both grpc-go servers serve, the plain one and the one with a starter's features.
package service

import (
	"context"

	"google.golang.org/grpc"

	benchv1 "example.com/ttrpc-starter/bench/gen/grpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/server"
)

// Register registers the service that h serves.
func Register(s grpc.ServiceRegistrar, h *server.Handler) {
	benchv1.RegisterBenchServer(s, &bench{h: h})
}

type bench struct {
	benchv1.UnimplementedBenchServer
	h *server.Handler
}

func (b *bench) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

func (b *bench) Stream(stream benchv1.Bench_StreamServer) error {
	return server.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func (b *bench) Hold(ctx context.Context, _ *benchv1.HoldRequest) (*benchv1.HoldResponse, error) {
	return &benchv1.HoldResponse{}, b.h.Hold(ctx)
}
