// Ours-client is a ttrpc client over ttrpcx.Dial.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/contender/ttrpc/caller"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { client.Main(dial) }

func dial(ctx context.Context, e endpoint.Endpoint) (client.Conn, error) {
	options := ttrpcx.ClientOptions{Address: e.Address}
	network, _ := e.Split()
	switch {
	case e.Certs != "":
		options.TLS = ttrpcx.TLSFiles{Cert: e.File("client.pem"), Key: e.File("client-key.pem"), CA: e.File("ca.pem")}
	case network == "tcp":
		options.Insecure = true
	}
	conn, err := ttrpcx.Dial(ctx, options)
	if err != nil {
		return nil, err
	}
	return caller.New(conn), nil
}
