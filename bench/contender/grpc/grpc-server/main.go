// Grpc-server is a grpc-go server with its defaults.
package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	benchv1 "example.com/ttrpc-starter/bench/gen/grpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	l, address, err := o.ListenPlain(ctx)
	if err != nil {
		return err
	}
	var options []grpc.ServerOption
	if o.Certs != "" {
		config, err := o.Server()
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	if o.MaxCalls > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(o.MaxCalls)))
	}
	s := grpc.NewServer(options...)
	benchv1.RegisterBenchServer(s, &bench{h: h})
	ready(address)
	return s.Serve(l)
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
