package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"slices"
	"strings"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/internal/cli"
)

// calls are the values of -method. Each prints every message that it gets.
var calls = map[string]func(context.Context, examplev1.ExampleClient, input, cli.Printer) error{
	"Method1": method1,
	"Split":   split,
	"Join":    join,
	"Echo":    echo,
}

// input is what the flags say to send.
type input struct{ foo, bar, text string }

// call is what the flags say to call.
type call struct {
	method string
	input
}

func callFlags(flags *flag.FlagSet) *call {
	c := &call{method: "Method1"}
	cli.ChoiceVar(flags, &c.method, "method", slices.Sorted(maps.Keys(calls)), "`method` to call")
	cli.TextVar(flags, &c.foo, "foo", "Foo", "`text` for Method1's foo")
	cli.TextVar(flags, &c.bar, "bar", "Bar", "`text` for Method1's bar")
	cli.TextVar(flags, &c.text, "text", "light as a feather",
		"`text` for the other methods, which take it word by word")
	return c
}

func (c *call) run(ctx context.Context, client examplev1.ExampleClient, print cli.Printer) error {
	return calls[c.method](ctx, client, c.input, print)
}

func method1(ctx context.Context, client examplev1.ExampleClient, in input, print cli.Printer) error {
	resp, err := client.Method1(ctx, &examplev1.Method1Request{Foo: in.foo, Bar: in.bar})
	if err != nil {
		return err
	}
	return print.Print(resp)
}

func split(ctx context.Context, client examplev1.ExampleClient, in input, print cli.Printer) error {
	stream, err := client.Split(ctx, &examplev1.SplitRequest{Text: in.text})
	if err != nil {
		return err
	}
	return cli.PrintAll(print, stream.Recv)
}

func join(ctx context.Context, client examplev1.ExampleClient, in input, print cli.Printer) error {
	stream, err := client.Join(ctx)
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(in.text) {
		if err := stream.Send(&examplev1.JoinRequest{Word: word}); err != nil {
			return err
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return print.Print(resp)
}

func echo(ctx context.Context, client examplev1.ExampleClient, in input, print cli.Printer) error {
	stream, err := client.Echo(ctx)
	if err != nil {
		return err
	}
	for word := range strings.FieldsSeq(in.text) {
		if err := stream.Send(&examplev1.EchoRequest{Message: word}); err != nil {
			return err
		}
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the server ended the stream before it answered")
		}
		if err != nil {
			return err
		}
		if err := print.Print(resp); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return cli.PrintAll(print, stream.Recv)
}
