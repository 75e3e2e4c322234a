package testservice

import (
	"context"
	"errors"
	"fmt"
	"io"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// CallAll makes a call of each kind to a Service that only answers. It returns an error if an answer is wrong.
func CallAll(ctx context.Context, client testv1.TestClient) error {
	for kind, call := range map[string]func(context.Context, testv1.TestClient) error{
		"Unary": callUnary, "Split": callSplit, "Join": callJoin, "Echo": callEcho,
	} {
		if err := call(ctx, client); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

func callUnary(ctx context.Context, client testv1.TestClient) error {
	r, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: "foo", Bar: "bar"})
	if err == nil && (r.GetFoo() != "foo" || r.GetBar() != "bar") {
		err = fmt.Errorf("answered %v", r)
	}
	return err
}

func callSplit(ctx context.Context, client testv1.TestClient) error {
	stream, err := client.Split(ctx, &testv1.SplitRequest{Text: "a b"})
	if err != nil {
		return err
	}
	for _, want := range []string{"a", "b"} {
		if r, err := stream.Recv(); err != nil || r.GetWord() != want {
			return fmt.Errorf("answered %v, %w", r, err)
		}
	}
	return wantEnd(stream.Recv)
}

func callJoin(ctx context.Context, client testv1.TestClient) error {
	stream, err := client.Join(ctx)
	if err != nil {
		return err
	}
	for _, word := range []string{"a", "b"} {
		if err := stream.Send(&testv1.JoinRequest{Word: word}); err != nil {
			return err
		}
	}
	r, err := stream.CloseAndRecv()
	if err == nil && r.GetText() != "a b" {
		err = fmt.Errorf("answered %v", r)
	}
	return err
}

func callEcho(ctx context.Context, client testv1.TestClient) error {
	stream, err := client.Echo(ctx)
	if err != nil {
		return err
	}
	for _, message := range []string{"a", "b"} {
		if err := stream.Send(&testv1.EchoRequest{Message: message}); err != nil {
			return err
		}
		if r, err := stream.Recv(); err != nil || r.GetMessage() != message {
			return fmt.Errorf("answered %v, %w", r, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return wantEnd(stream.Recv)
}

func wantEnd[M any](recv func() (M, error)) error {
	if _, err := recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end is %w", err)
	}
	return nil
}
