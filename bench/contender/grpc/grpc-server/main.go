// Grpc-server is a grpc-go server with its defaults.
package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"example.com/ttrpc-starter/bench/contender/grpc/service"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	l, address, err := o.ListenPlain(ctx)
	if err != nil {
		return err
	}
	var options []grpc.ServerOption
	if o.Certs != "" {
		config, err := o.Server()
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	if o.MaxCalls > 0 {
		options = append(options, grpc.MaxConcurrentStreams(uint32(o.MaxCalls)))
	}
	s := grpc.NewServer(options...)
	service.Register(s, h)
	ready(address)
	return s.Serve(l)
}
