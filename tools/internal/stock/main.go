// Stock is a server for tests: the test service on ttrpc as it comes, without interceptors or limits. The tests also
// build it with an old version of ttrpc.
//
// Usage: stock [-reflection] PATH, where PATH is that of a unix socket. It prints on standard error: "serving" when it
// listens, the metadata of calls that have some, "blocks" when a call does, and "cancelled" when that call's context
// has ended.
//
// In addition to what the .proto file says, the first word of a message's text can be a command, with its argument
// after it:
//
//	context    answers with the call's metadata and whether it has a deadline
//	fail       fails with FailedPrecondition and a detail
//	unimplemented  fails with Unimplemented
//	block      waits for the end of the call's context
//	large N    answers with N bytes (not Split, which takes each word by itself)
//	early      answers before the client has closed its side (Join), or ends the stream (Split, Echo)
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"strconv"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"example.com/ttrpc-starter/internal/testservice"
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
	testv1.RegisterTestService(server, testservice.Service{Begin: begin, Text: answer})
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

func begin(ctx context.Context, _ string) error {
	if md, ok := ttrpc.GetMetadata(ctx); ok {
		log.Print(md)
	}
	return nil
}

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
	case "unimplemented":
		return "", status.Error(codes.Unimplemented, "not here yet")
	case "block":
		log.Print("blocks")
		<-ctx.Done()
		log.Print("cancelled")
		return "", ctx.Err()
	case "large":
		n, err := strconv.Atoi(arg)
		return strings.Repeat("x", n), err
	case "early":
		return "early", testservice.ErrEnd
	}
	return text, nil
}
