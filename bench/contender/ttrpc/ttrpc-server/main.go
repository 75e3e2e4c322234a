// Ttrpc-server is a stock ttrpc server.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/contender/ttrpc/service"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	s, err := service.New(h)
	if err != nil {
		return err
	}
	l, address, err := o.Listen(ctx)
	if err != nil {
		return err
	}
	ready(address)
	return s.Serve(ctx, l)
}
