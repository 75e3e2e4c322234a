// Ours is ttrpc with ttrpcx.Listen, Serve and Dial. It has no interceptors and no log, because the others have none.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/internal/echo/ttrpcecho"
	"example.com/ttrpc-starter/bench/internal/worker"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { worker.Main(worker.Contender{Serve: serve, Dial: dial}) }

func serve(ctx context.Context, socket string) error {
	s, err := ttrpcecho.NewServer()
	if err != nil {
		return err
	}
	l, err := ttrpcx.Listen(ctx, ttrpcx.ServerOptions{Address: socket})
	if err != nil {
		return err
	}
	return ttrpcx.Serve(ctx, s, l)
}

func dial(ctx context.Context, socket string) (worker.Conn, error) {
	conn, err := ttrpcx.Dial(ctx, ttrpcx.ClientOptions{Address: socket})
	if err != nil {
		return nil, err
	}
	return ttrpcecho.NewConn(conn), nil
}
