// Netrpc-server is a server of the standard library's net/rpc.
package main

import (
	"context"
	"net/rpc"

	"example.com/ttrpc-starter/bench/contender/netrpc/bench"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, h *server.Handler, ready func(string)) error {
	s := rpc.NewServer()
	if err := s.Register(&Bench{h}); err != nil {
		return err
	}
	l, address, err := o.Listen(ctx)
	if err != nil {
		return err
	}
	ready(address)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go s.ServeConn(conn)
	}
}

// Bench is the service: net/rpc takes its name, and its methods, from the type.
type Bench struct{ h *server.Handler }

// Echo returns the request.
func (b *Bench) Echo(req *bench.Message, resp *bench.Message) error {
	*resp = *req
	return nil
}

// Hold waits for its release.
func (b *Bench) Hold(bench.None, *bench.None) error { return b.h.Hold(context.Background()) }
