// Server is like the starter's server, with the tests' service. Its tests do not depend on the example service.
package main

import (
	"context"
	"io"
	"strings"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("server", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("server", "Serves the tests' service over ttrpc until SIGINT or SIGTERM.")
	options, err := cli.ParseServer(flags, args, stdout, stderr)
	if err != nil {
		return err
	}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		return err
	}
	testv1.HandleTest(server, testservice.Service{Begin: func(ctx context.Context, method string) error {
		options.Logger.InfoContext(ctx, strings.ToLower(method)+" call")
		return nil
	}})
	return server.ListenAndServe(ctx)
}
