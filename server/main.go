// Server serves the Example service until it gets SIGINT or SIGTERM.
package main

import (
	"context"
	"io"

	"github.com/containerd/ttrpc"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("server", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("server", "Serves the Example service over ttrpc until SIGINT or SIGTERM.")
	options, err := cli.ParseServer(flags, args, stdout, stderr)
	if err != nil {
		return err
	}
	options.Interceptors = []ttrpc.StreamServerInterceptor{showMetadata(options.Logger)}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		return err
	}
	examplev1.HandleExample(server, &example{options.Logger})
	return server.ListenAndServe(ctx)
}
