package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
)

// calls are the values of -method. Each prints every message that it gets, by way of print.go.
var calls = map[string]func(context.Context, examplev1.ExampleClient, input, printer) error{
	"Method1": method1,
	"Split":   split,
	"Join":    join,
	"Echo":    echo,
}

// input is what the flags say to send.
type input struct{ foo, bar, text string }

func method1(ctx context.Context, client examplev1.ExampleClient, in input, print printer) error {
	resp, err := client.Method1(ctx, &examplev1.Method1Request{Foo: in.foo, Bar: in.bar})
	if err != nil {
		return err
	}
	return print(resp)
}

func split(ctx context.Context, client examplev1.ExampleClient, in input, print printer) error {
	stream, err := client.Split(ctx, &examplev1.SplitRequest{Text: in.text})
	if err != nil {
		return err
	}
	return printAll(stream.Recv, print)
}

func join(ctx context.Context, client examplev1.ExampleClient, in input, print printer) error {
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
	return print(resp)
}

func echo(ctx context.Context, client examplev1.ExampleClient, in input, print printer) error {
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
		if err := print(resp); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return printAll(stream.Recv, print)
}

// printAll prints what recv returns until the server ends the stream.
func printAll[M proto.Message](recv func() (M, error), print printer) error {
	for {
		msg, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := print(msg); err != nil {
			return err
		}
	}
}
