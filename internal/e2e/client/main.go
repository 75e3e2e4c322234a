// Client is like the starter's client, with the tests' service. It makes one unary call, or with -all a call of each
// kind.
package main

import (
	"context"
	"io"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("client", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("client", "Calls the tests' service.")
	all := flags.Bool("all", false, "make a call of each kind and print nothing")
	options, err := cli.ParseClient(flags, args, stdout, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := options.Context(ctx)
	defer cancel()
	c, err := ttrpcx.NewClient(ctx, options.ClientOptions)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	client := testv1.CallTest(c)
	if *all {
		return testservice.CallAll(ctx, client)
	}
	resp, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: "Foo", Bar: "Bar"})
	if err != nil {
		return err
	}
	return cli.Printer{W: stdout}.Print(resp)
}
