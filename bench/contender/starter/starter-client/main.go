// Starter-client calls starter-server as the starter's own client does, but without a log: the server's log is what is
// measured.
package main

import (
	"context"
	"log/slog"

	"example.com/ttrpc-starter/bench/contender/ttrpc/caller"
	benchv1 "example.com/ttrpc-starter/bench/gen/ttrpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	c, err := ttrpcx.NewClient(ctx, ttrpcx.ClientOptions{Address: e.Address, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return caller.Of(benchv1.CallBench(c), c), nil
}
