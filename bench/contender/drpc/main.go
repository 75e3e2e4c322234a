// Drpc is storj's drpc. A connection of drpc takes one call at a time, so it has drpc's pool of them.
package main

import (
	"context"
	"errors"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcserver"

	benchv1 "example.com/ttrpc-starter/bench/gen/drpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	mux := drpcmux.New()
	if err := benchv1.DRPCRegisterBench(mux, service{}); err != nil {
		return err
	}
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	return drpcserver.New(mux).Serve(ctx, l)
}

type service struct{}

func (service) Echo(_ context.Context, req *benchv1.EchoRequest) (*benchv1.EchoResponse, error) {
	return &benchv1.EchoResponse{Id: req.GetId(), Payload: req.GetPayload()}, nil
}

func (service) Stream(stream benchv1.DRPCBench_StreamStream) error {
	return worker.EchoStream(stream.Recv, func(req *benchv1.StreamRequest) error {
		return stream.Send(&benchv1.StreamResponse{Id: req.GetId(), Payload: req.GetPayload()})
	})
}

func dial(ctx context.Context, socket string) (worker.Conn, error) {
	pool := drpcpool.New[string, drpcpool.Conn](drpcpool.Options{})
	conn := pool.Get(ctx, socket, func(ctx context.Context, socket string) (drpcpool.Conn, error) {
		conn, err := worker.Dial(ctx, socket)
		if err != nil {
			return nil, err
		}
		return drpcconn.New(conn), nil
	})
	return &client{pool, conn, benchv1.NewDRPCBenchClient(conn)}, nil
}

type client struct {
	pool  *drpcpool.Pool[string, drpcpool.Conn]
	conn  drpc.Conn
	bench benchv1.DRPCBenchClient
}

func (c *client) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, &benchv1.EchoRequest{Id: id, Payload: payload})
	return resp.GetId(), resp.GetPayload(), err
}

func (c *client) Stream(ctx context.Context) (worker.Stream, error) {
	s, err := c.bench.Stream(ctx)
	return stream{s}, err
}

func (c *client) Close() error { return errors.Join(c.conn.Close(), c.pool.Close()) }

type stream struct{ benchv1.DRPCBench_StreamClient }

func (s stream) Send(id uint64, payload []byte) error {
	return s.DRPCBench_StreamClient.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.DRPCBench_StreamClient.Recv()
	return resp.GetId(), resp.GetPayload(), err
}
