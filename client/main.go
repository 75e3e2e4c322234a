// Client calls one method of the Example service and prints what it answers.
package main

import (
	"context"
	"io"

	"github.com/containerd/ttrpc"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("client", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("client", "Calls a method of the Example service and prints each answer as a line of JSON.")
	call := callFlags(flags)
	options, err := cli.ParseClient(flags, args, stdout, stderr)
	if err != nil {
		return err
	}
	options.Interceptors = []ttrpc.UnaryClientInterceptor{showMetadata(options.Logger)}
	ctx, cancel := options.Context(ctx)
	defer cancel()
	client, err := ttrpcx.NewClient(ctx, options.ClientOptions)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return call.run(ctx, examplev1.CallExample(client), cli.Printer{W: stdout})
}
