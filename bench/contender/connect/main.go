// Connect is connect-go with its own protocol, on net/http, over one connection of HTTP/2.
package main

import (
	"context"
	"net"
	"net/http"

	"connectrpc.com/connect"

	benchv1 "example.com/ttrpc-starter/bench/gen/connect/bench/v1"
	"example.com/ttrpc-starter/bench/gen/connect/bench/v1/benchv1connect"
	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(benchv1connect.NewBenchHandler(service{}))
	s := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.Serve(l)
}

type service struct{}

func (service) Echo(_ context.Context, req *connect.Request[benchv1.EchoRequest]) (
	*connect.Response[benchv1.EchoResponse], error,
) {
	return connect.NewResponse(&benchv1.EchoResponse{Id: req.Msg.GetId(), Payload: req.Msg.GetPayload()}), nil
}

func (service) Stream(
	_ context.Context, stream *connect.BidiStream[benchv1.StreamRequest, benchv1.StreamResponse],
) error {
	return worker.EchoStream(stream.Receive, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func dial(_ context.Context, socket string) (worker.Conn, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return worker.Dial(ctx, socket) },
		Protocols:   new(http.Protocols),
		HTTP2:       &http.HTTP2Config{StrictMaxConcurrentRequests: true}, // or it would open further connections
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	bench := benchv1connect.NewBenchClient(&http.Client{Transport: transport}, "http://localhost")
	return &client{transport, bench}, nil
}

type client struct {
	transport *http.Transport
	bench     benchv1connect.BenchClient
}

func (c *client) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, connect.NewRequest(&benchv1.EchoRequest{Id: id, Payload: payload}))
	if err != nil {
		return 0, nil, err
	}
	return resp.Msg.GetId(), resp.Msg.GetPayload(), nil
}

func (c *client) Stream(ctx context.Context) (worker.Stream, error) {
	return stream{c.bench.Stream(ctx)}, nil
}

func (c *client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

type stream struct {
	bidi *connect.BidiStreamForClient[benchv1.StreamRequest, benchv1.StreamResponse]
}

func (s stream) Send(id uint64, payload []byte) error {
	return s.bidi.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.bidi.Receive()
	return resp.GetId(), resp.GetPayload(), err
}

func (s stream) CloseSend() error { return s.bidi.CloseRequest() }
