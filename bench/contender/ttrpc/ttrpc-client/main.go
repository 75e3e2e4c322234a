// Ttrpc-client is a stock ttrpc client.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/contender/ttrpc/caller"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	conn, err := e.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return caller.New(conn), nil
}
