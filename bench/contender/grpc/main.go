// Grpc is grpc-go with its defaults.
package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	benchv1 "example.com/ttrpc-starter/bench/gen/grpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/echo/grpcecho"
	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	grpcecho.Register(s)
	return s.Serve(l)
}

func dial(_ context.Context, socket string) (worker.Conn, error) {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &client{conn, benchv1.NewBenchClient(conn)}, nil
}

type client struct {
	*grpc.ClientConn
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
