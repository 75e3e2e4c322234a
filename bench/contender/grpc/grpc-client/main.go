// Grpc-client is a grpc-go client with its defaults.
package main

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	benchv1 "example.com/ttrpc-starter/bench/gen/grpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(_ context.Context, e endpoint.Endpoint) (client.Conn, error) {
	creds := insecure.NewCredentials()
	if e.Certs != "" {
		config, err := e.Client()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient(strings.Replace(e.Address, "tcp://", "passthrough:", 1),
		grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	return &caller{conn, benchv1.NewBenchClient(conn)}, nil
}

type caller struct {
	conn  *grpc.ClientConn
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

func (c *caller) Close() error { return c.conn.Close() }

type stream struct{ benchv1.Bench_StreamClient }

func (s stream) Send(id uint64, payload []byte) error {
	return s.Bench_StreamClient.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.Bench_StreamClient.Recv()
	return resp.GetId(), resp.GetPayload(), err
}
