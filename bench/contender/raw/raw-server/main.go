// Raw-server returns each message that a connection brings: no calls, no code generated, the least that can be done.
package main

import (
	"context"

	"example.com/ttrpc-starter/bench/contender/raw/frame"
	"example.com/ttrpc-starter/bench/internal/server"
)

func main() { server.Main(serve) }

func serve(ctx context.Context, o server.Options, _ *server.Handler, ready func(string)) error {
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
		go echo(frame.NewConn(conn))
	}
}

func echo(conn *frame.Conn) {
	defer conn.Close()
	for {
		id, payload, err := conn.Read()
		if err != nil || conn.Write(id, payload) != nil {
			return
		}
	}
}
