// Ttgate lets clients of gRPC, Connect, gRPC-Web and plain HTTP call a ttrpc server.
package main

import (
	"context"
	"io"

	"example.com/ttrpc-starter/internal/cli"
)

func main() { cli.Main("ttgate", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	o, err := parse(args, stdout, stderr)
	if err != nil {
		return err
	}
	g, err := newGate(o)
	if err != nil {
		return err
	}
	return g.listenAndServe(ctx)
}
