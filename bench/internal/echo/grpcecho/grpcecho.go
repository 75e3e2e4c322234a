// Package grpcecho is what both grpc-go servers serve, the plain one and the one with the starter's features.
package grpcecho

import (
	"context"

	"google.golang.org/grpc"

	benchv1 "example.com/ttrpc-starter/bench/gen/grpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/worker"
)

// Register registers a service that echoes.
func Register(s grpc.ServiceRegistrar) { benchv1.RegisterBenchServer(s, service{}) }

type service struct {
	benchv1.UnimplementedBenchServer
}

func (service) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

func (service) Stream(stream benchv1.Bench_StreamServer) error {
	return worker.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}
