// Ttrpc is stock ttrpc.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/internal/echo/ttrpcecho"
	"example.com/ttrpc-starter/bench/internal/worker"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	s, err := ttrpcecho.NewServer()
	if err != nil {
		return err
	}
	l, err := worker.Listen(ctx, socket)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

func dial(ctx context.Context, socket string) (worker.Conn, error) {
	conn, err := worker.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return ttrpcecho.NewConn(conn), nil
}
