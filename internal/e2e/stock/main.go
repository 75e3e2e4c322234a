// Stock is the Example service on ttrpc as it comes, with nothing of this project but the generated code. Tests hold the
// project's server and client against it, also built with an older ttrpc.
//
// Usage: stock serve PATH | stock call PATH, the path being a unix socket's. "serve" prints "serving" on standard error
// when it listens. "call" calls each method once and fails if an answer is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"

	"github.com/containerd/ttrpc"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: stock serve|call PATH")
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "call":
		err = call(os.Args[2])
	default:
		err = fmt.Errorf("unknown mode %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(path string) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	testv1.RegisterTestService(server, example{})
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	log.Print("serving")
	return server.Serve(context.Background(), l)
}

func call(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	c := ttrpc.NewClient(conn)
	defer func() { _ = c.Close() }()
	client, ctx := testv1.NewTestClient(c), context.Background()

	one, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: "a", Bar: "b"})
	if err != nil || one.GetFoo() != "a" || one.GetBar() != "b" {
		return fmt.Errorf("answer of Unary: %v, %w", one, err)
	}

	split, err := client.Split(ctx, &testv1.SplitRequest{Text: "a b"})
	if err != nil {
		return err
	}
	for _, want := range []string{"a", "b"} {
		if got, err := split.Recv(); err != nil || got.GetWord() != want {
			return fmt.Errorf("answer of Split: %v, %w", got, err)
		}
	}
	if _, err := split.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("end of Split: %w", err)
	}

	join, err := client.Join(ctx)
	if err != nil {
		return err
	}
	for _, word := range []string{"a", "b"} {
		if err := join.Send(&testv1.JoinRequest{Word: word}); err != nil {
			return err
		}
	}
	if got, err := join.CloseAndRecv(); err != nil || got.GetText() != "a b" {
		return fmt.Errorf("answer of Join: %v, %w", got, err)
	}

	echo, err := client.Echo(ctx)
	if err != nil {
		return err
	}
	for _, message := range []string{"a", "b"} {
		if err := echo.Send(&testv1.EchoRequest{Message: message}); err != nil {
			return err
		}
		if got, err := echo.Recv(); err != nil || got.GetMessage() != message {
			return fmt.Errorf("answer of Echo: %v, %w", got, err)
		}
	}
	if err := echo.CloseSend(); err != nil {
		return err
	}
	if _, err := echo.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("end of Echo: %w", err)
	}
	return nil
}

// example has the methods that the project starts with; any that are added are nil, and not called by tests.
type example struct{ testv1.TestService }

func (example) Unary(_ context.Context, req *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
	return &testv1.UnaryResponse{Foo: req.GetFoo(), Bar: req.GetBar()}, nil
}

func (example) Split(_ context.Context, req *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
	for _, word := range strings.Fields(req.GetText()) {
		if err := stream.Send(&testv1.SplitResponse{Word: word}); err != nil {
			return err
		}
	}
	return nil
}

func (example) Join(_ context.Context, stream testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
	var words []string
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &testv1.JoinResponse{Text: strings.Join(words, " ")}, nil
		} else if err != nil {
			return nil, err
		}
		words = append(words, req.GetWord())
	}
}

func (example) Echo(_ context.Context, stream testv1.Test_EchoServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&testv1.EchoResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}
