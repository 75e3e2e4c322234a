// Connect-server is a connect-go server, which speaks its own protocol and gRPC's on net/http, over HTTP/2.
package main

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	benchv1 "example.com/ttrpc-starter/bench/gen/connect/bench/v1"
	"example.com/ttrpc-starter/bench/gen/connect/bench/v1/benchv1connect"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	mux := http.NewServeMux()
	mux.Handle(benchv1connect.NewBenchHandler(&bench{h}))
	s := &http.Server{
		Handler: mux, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: o.MaxCalls},
	}
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	l, address, err := o.ListenPlain(ctx)
	if err != nil {
		return err
	}
	if o.Certs == "" {
		ready(address)
		return s.Serve(l)
	}
	if s.TLSConfig, err = o.Server(); err != nil {
		return err
	}
	ready(address)
	return s.ServeTLS(l, "", "")
}

type bench struct{ h *server.Handler }

func (b *bench) Echo(_ context.Context, req *connect.Request[benchv1.EchoRequest]) (
	*connect.Response[benchv1.EchoResponse], error,
) {
	return connect.NewResponse(&benchv1.EchoResponse{Id: req.Msg.GetId(), Payload: req.Msg.GetPayload()}), nil
}

func (b *bench) Stream(
	_ context.Context, stream *connect.BidiStream[benchv1.StreamRequest, benchv1.StreamResponse],
) error {
	return server.EchoStream(stream.Receive, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func (b *bench) Hold(ctx context.Context, _ *connect.Request[benchv1.HoldRequest]) (
	*connect.Response[benchv1.HoldResponse], error,
) {
	return connect.NewResponse(&benchv1.HoldResponse{}), b.h.Hold(ctx)
}
