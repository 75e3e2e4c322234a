// Stock is a server for tests: the Example service on ttrpc as it comes, without interceptors or limits. The tests build
// it with old versions of ttrpc, too.
//
// Usage: stock [-reflection] PATH, the path being a unix socket's. It prints "serving" on standard error when it listens, "blocks" when
// a call does, and "cancelled" when that call's context has ended.
//
// What each method does besides what the .proto file says depends on the first word of the first message:
//
//	context    answers with the call's metadata and whether it has a deadline
//	fail       fails with FailedPrecondition and a detail
//	block      waits for the end of the call's context
//	large N    answers with N bytes
//	count N    answers with the numbers below N (Split)
//	early      answers before the client has closed its side (Join), or ends the stream (Echo)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

func main() {
	log.SetFlags(0)
	reflect := flag.Bool("reflection", false, "serve reflection")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: stock [-reflection] PATH")
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	testv1.RegisterTestService(server, example{})
	if *reflect {
		registerReflection(server)
	}
	l, err := net.Listen("unix", flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	log.Print("serving")
	log.Fatal(server.Serve(context.Background(), l))
}

// example has the methods that the project starts with; any that are added are nil, and not called by tests.
type example struct{ testv1.TestService }

var errEarly = errors.New("early")

// answer returns what the text asks for.
func answer(ctx context.Context, text string) (string, error) {
	command, arg, _ := strings.Cut(text, " ")
	switch command {
	case "context":
		md, _ := ttrpc.GetMetadata(ctx)
		_, deadline := ctx.Deadline()
		return fmt.Sprint(map[string][]string(md), deadline), nil
	case "fail":
		st, err := status.New(codes.FailedPrecondition, "as asked").WithDetails(durationpb.New(1e9))
		if err != nil {
			return "", err
		}
		return "", st.Err()
	case "block":
		log.Print("blocks")
		<-ctx.Done()
		log.Print("cancelled")
		return "", ctx.Err()
	case "large":
		n, err := strconv.Atoi(arg)
		return strings.Repeat("x", n), err
	case "early":
		return "early", errEarly
	}
	return text, nil
}

func (example) Unary(ctx context.Context, req *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
	foo, err := answer(ctx, req.GetFoo())
	if err != nil {
		return nil, err
	}
	return &testv1.UnaryResponse{Foo: foo, Bar: req.GetBar()}, nil
}

func (example) Split(ctx context.Context, req *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
	if n, ok := strings.CutPrefix(req.GetText(), "count "); ok {
		end, err := strconv.Atoi(n)
		for i := 0; i < end && err == nil; i++ {
			err = stream.Send(&testv1.SplitResponse{Word: strconv.Itoa(i)})
		}
		return err
	}
	for _, word := range strings.Split(req.GetText(), ", ") {
		word, err := answer(ctx, word)
		if err != nil {
			return err
		}
		if err := stream.Send(&testv1.SplitResponse{Word: word}); err != nil {
			return err
		}
	}
	return nil
}

func (example) Join(ctx context.Context, stream testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
	var words []string
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &testv1.JoinResponse{Text: strings.Join(words, " ")}, nil
		} else if err != nil {
			return nil, err
		}
		word, err := answer(ctx, req.GetWord())
		if errors.Is(err, errEarly) {
			return &testv1.JoinResponse{Text: word}, nil
		} else if err != nil {
			return nil, err
		}
		words = append(words, word)
	}
}

func (example) Echo(ctx context.Context, stream testv1.Test_EchoServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		message, err := answer(ctx, req.GetMessage())
		if errors.Is(err, errEarly) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&testv1.EchoResponse{Message: message}); err != nil {
			return err
		}
	}
}
