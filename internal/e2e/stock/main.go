// Stock is a server and a client of the tests' service that use ttrpc without this project's library. Tests run them
// with this project's client and server, also built with an older ttrpc.
//
// Usage: stock serve PATH | stock call PATH [CALLERS BYTES]. PATH is that of a unix socket. "serve" prints "serving" on
// standard error when it listens. "call" makes a call of each kind, or with CALLERS as many unary calls at once with
// texts of BYTES, and fails if an answer is wrong.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

func main() {
	log.SetFlags(0)
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "serve":
		err = serve(args[1])
	case len(args) == 2 && args[0] == "call":
		err = call(args[1], testservice.CallAll)
	case len(args) == 4 && args[0] == "call":
		err = callAtOnce(args[1], args[2], args[3])
	default:
		err = errors.New("usage: stock serve PATH | stock call PATH [CALLERS BYTES]")
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
	testv1.RegisterTestService(server, testservice.Service{})
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	log.Print("serving")
	return server.Serve(context.Background(), l)
}

func callAtOnce(path, callers, bytes string) error {
	n, err := strconv.Atoi(callers)
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(bytes)
	if err != nil {
		return err
	}
	text := strings.Repeat("x", size)
	return call(path, func(ctx context.Context, client testv1.TestClient) error {
		errs := make(chan error, n)
		for range n {
			go func() {
				got, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: text})
				if err == nil && got.GetFoo() != text {
					err = errors.New("wrong answer")
				}
				errs <- err
			}()
		}
		for range n {
			err = errors.Join(err, <-errs)
		}
		return err
	})
}

func call(path string, calls func(context.Context, testv1.TestClient) error) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	return calls(context.Background(), testv1.NewTestClient(client))
}
