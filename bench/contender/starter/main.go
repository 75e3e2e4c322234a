// Starter is the benchmark's service in a server like the starter's own, with all flags and all that ttrpcx.NewServer
// gives it.
package main

import (
	"context"
	"io"

	benchv1 "example.com/ttrpc-starter/bench/gen/ttrpc/bench/v1"
	"example.com/ttrpc-starter/bench/internal/echo/ttrpcecho"
	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("starter", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("starter", "Serves the Bench service over ttrpc until SIGINT or SIGTERM.")
	// The gRPC server logs each call.
	options, err := cli.ParseServer(flags, append([]string{"-max-log-lines", "-1"}, args...), stdout, stderr)
	if err != nil {
		return err
	}
	s, err := ttrpcx.NewServer(options)
	if err != nil {
		return err
	}
	benchv1.HandleBench(s, ttrpcecho.Service{})
	return s.ListenAndServe(ctx)
}
