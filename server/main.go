// Server serves the Example service until it gets SIGINT or SIGTERM.
package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/containerd/ttrpc"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/reflection"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("server", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("server", "Serves the Example service over ttrpc until SIGINT or SIGTERM.")
	var options ttrpcx.ServerOptions
	options.RegisterFlags(flags)
	callTimeout := flags.Duration("call-timeout", 0, "`duration` that a call without a deadline may take; 0 is no limit")
	var reflect cli.OptionalBool
	flags.Var(&reflect, "reflection", "tell callers the services and messages there are (default true for unix sockets, false for TCP)")
	var floor heapfloor.Size
	flags.Var(&floor, "heap-floor", "`size`, such as 64MiB, up to which the heap may grow before it is collected; 0 is Go's default")
	var format cli.LogFormat
	format.Register(flags)
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return err
	}
	if err := options.Validate(); err != nil {
		return &cli.UsageError{Err: err}
	}
	if *callTimeout < 0 {
		return cli.Usagef("-call-timeout is %v: want zero or more", *callTimeout)
	}

	log := format.Logger(stderr)
	interceptor.ContainerdLog(log) // what ttrpc itself logs goes there, too
	options.Logger = log
	restore, err := heapfloor.Set(floor)
	if err != nil {
		log.Warn("no heap floor", "error", err)
	}
	defer restore()
	intercept := interceptor.Chain( // the order matters: see package interceptor
		interceptor.Log(interceptor.LogOptions{Logger: log, Peer: peer}),
		interceptor.Recover(log),
		interceptor.Deadline(*callTimeout),
		interceptor.Sendable(),
	)
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(interceptor.Unary(intercept)))
	if err != nil {
		return err
	}
	examplev1.RegisterExampleService(server, &example{log: log, intercept: intercept})
	options.Services, err = reflection.Services(reflection.Options{Services: []string{"example.v1.Example"}, Intercept: intercept})
	if err != nil {
		return err
	}

	listener, err := ttrpcx.Listen(ctx, options)
	if err != nil {
		return err
	}
	if reflect.Or(listener.Addr().Network() == "unix") {
		for name, desc := range options.Services {
			server.RegisterService(name, desc)
		}
	}
	log.Info("server start", "address", listener.String())
	if err := ttrpcx.Serve(ctx, server, listener); err != nil {
		log.Error("server stop", "error", err)
		return err
	}
	log.Info("server stop")
	return nil
}

// peer is the caller, for the log.
func peer(ctx context.Context) slog.Attr {
	p, _ := ttrpcx.PeerFromContext(ctx) // every call below Serve has one
	return slog.Any("peer", p)
}
