// Drpc-server is a drpc server.
package main

import (
	"context"

	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcserver"

	benchv1 "example.com/ttrpc-starter/bench/gen/drpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	mux := drpcmux.New()
	if err := benchv1.DRPCRegisterBench(mux, &bench{h}); err != nil {
		return err
	}
	l, address, err := o.Listen(ctx)
	if err != nil {
		return err
	}
	ready(address)
	return drpcserver.New(mux).Serve(ctx, l)
}

type bench struct{ h *server.Handler }

func (b *bench) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

func (b *bench) Stream(stream benchv1.DRPCBench_StreamStream) error {
	return server.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func (b *bench) Hold(ctx context.Context, _ *benchv1.HoldRequest) (*benchv1.HoldResponse, error) {
	return &benchv1.HoldResponse{}, b.h.Hold(ctx)
}
