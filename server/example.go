package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// example implements the service. A method that is added to the .proto is missing here until it is written.
type example struct{ log *slog.Logger }

var _ examplev1.ExampleService = (*example)(nil)

// Method1 is unary: one request, one response.
func (e *example) Method1(ctx context.Context, req *examplev1.Method1Request) (*examplev1.Method1Response, error) {
	e.log.InfoContext(ctx, "method1 call")
	return &examplev1.Method1Response{Foo: req.GetFoo(), Bar: req.GetBar()}, nil
}

// maxText bounds the text of Split and Join in bytes. Split sends a message for each word, and a request of 4 MiB has
// room for two million words. Join keeps its words until the caller sends no more.
const maxText = 64 << 10

// Split is server-streaming: one request, any number of responses.
func (e *example) Split(ctx context.Context, req *examplev1.SplitRequest, stream examplev1.Example_SplitServer) error {
	e.log.InfoContext(ctx, "split call")
	if n := len(req.GetText()); n > maxText {
		return status.Errorf(codes.InvalidArgument, "text has %d bytes: want at most %d", n, maxText)
	}
	for word := range strings.FieldsSeq(req.GetText()) {
		if err := stream.Send(&examplev1.SplitResponse{Word: word}); err != nil {
			return err
		}
	}
	return nil
}

// Join is client-streaming: any number of requests, one response.
func (e *example) Join(ctx context.Context, stream examplev1.Example_JoinServer) (*examplev1.JoinResponse, error) {
	e.log.InfoContext(ctx, "join call")
	var words []string
	size := 0
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &examplev1.JoinResponse{Text: strings.Join(words, " ")}, nil
		}
		if err != nil {
			return nil, err
		}
		if size += len(req.GetWord()) + len(" "); size > maxText {
			return nil, status.Errorf(codes.InvalidArgument, "text has more than %d bytes", maxText)
		}
		// Peers may open many streams, so what each keeps counts: the text twice, and its place in words.
		if err := ttrpcx.Reserve(ctx, 2*len(req.GetWord())+32); err != nil {
			return nil, err
		}
		words = append(words, req.GetWord())
	}
}

// Echo is bidirectional: requests and responses in any order.
func (e *example) Echo(ctx context.Context, stream examplev1.Example_EchoServer) error {
	e.log.InfoContext(ctx, "echo call")
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&examplev1.EchoResponse{Message: req.GetMessage()}); err != nil {
			return err
		}
	}
}
