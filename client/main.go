// Client calls one method of the Example service and prints what it answers.
package main

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/containerd/ttrpc"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

func main() { cli.Main("client", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	methods := strings.Join(slices.Sorted(maps.Keys(calls)), ", ")
	flags := cli.NewFlagSet("client", "Calls one method of the Example service and prints each answer as a line of JSON.")
	var options ttrpcx.ClientOptions
	options.RegisterFlags(flags)
	method := flags.String("method", "Method1", "`method` to call: "+methods)
	var in input
	flags.StringVar(&in.foo, "foo", "Foo", "`text` for Method1's foo")
	flags.StringVar(&in.bar, "bar", "Bar", "`text` for Method1's bar")
	flags.StringVar(&in.text, "text", "light as a feather", "`text` for the other methods, which take it word by word")
	metadata := metadataFlag{MD: ttrpc.MD{"name": {"koye"}}}
	flags.Var(&metadata, "metadata", "`key=value` to send as metadata; repeatable, and \"\" sends none")
	timeout := flags.Duration("timeout", 5*time.Second, "`duration` that connecting and calling may take in all")
	var format cli.LogFormat
	format.Register(flags)
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return err
	}
	if err := options.Validate(); err != nil {
		return &cli.UsageError{Err: err}
	}
	call, ok := calls[*method]
	if !ok {
		return cli.Usagef("unknown -method %q: want one of %s", *method, methods)
	}
	for flag, text := range map[string]string{"-foo": in.foo, "-bar": in.bar, "-text": in.text} {
		if !utf8.ValidString(text) {
			return cli.Usagef("%s is not valid UTF-8, as text in protobuf must be", flag)
		}
	}
	if *timeout <= 0 {
		return cli.Usagef("-timeout is %v: want more than zero, such as 5s", *timeout)
	}

	log := format.Logger(stderr)
	interceptor.ContainerdLog(log) // what ttrpc itself logs goes there, too
	options.Logger = log
	log.Info("client start", "address", options.Address)
	ctx, cancel := context.WithTimeout(ttrpc.WithMetadata(ctx, metadata.MD), *timeout)
	defer cancel()
	conn, err := ttrpcx.Dial(ctx, options)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(wire.StreamContext(ctx, conn), // ttrpc sends metadata and deadline with unary calls only
		ttrpc.WithChainUnaryClientInterceptor(interceptor.ClientLog(log), interceptor.ClientStatus()))
	defer func() { _ = client.Close() }()
	err = call(ctx, examplev1.NewExampleClient(client), in, jsonPrinter(stdout))
	return interceptor.StatusError(err) // for streams, which no interceptor of ttrpc's sees
}
