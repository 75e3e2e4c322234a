// Ours-server is a ttrpc server behind ttrpcx.Listen and ttrpcx.Serve. It has no interceptors, because the other
// contenders have none.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/contender/ttrpc/service"
	"example.com/ttrpc-starter/bench/internal/server"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	s, err := service.New(h)
	if err != nil {
		return err
	}
	options := ttrpcx.ServerOptions{Address: o.Address, MaxCalls: o.MaxCalls}
	network, _ := o.Split()
	switch {
	case o.Certs != "":
		options.TLS = ttrpcx.TLSFiles{Cert: o.File("server.pem"), Key: o.File("server-key.pem"), CA: o.File("ca.pem")}
	case network == "tcp":
		options.Insecure = true
	}
	l, err := ttrpcx.Listen(ctx, options)
	if err != nil {
		return err
	}
	ready(l.String())
	return ttrpcx.Serve(ctx, s, l)
}
