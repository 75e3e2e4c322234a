package ttrpcx_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// address returns the address of a unix socket in a new directory, and a function that removes the directory.
func address() (address string, remove func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	return "unix://" + filepath.ToSlash(filepath.Join(dir, "app.sock")), func() { _ = os.RemoveAll(dir) }
}

// start starts a server. stop stops it and returns its error.
func start(serve func(context.Context, *ttrpcx.Listener) error, options ttrpcx.ServerOptions) (stop func() error) {
	l, err := ttrpcx.Listen(context.Background(), options)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l) }()
	return func() error { cancel(); return <-ended }
}

// A client makes a call to a server. Both have an interceptor. HandleTest and CallTest are generated code.
func Example() {
	address, remove := address()
	defer remove()
	quiet := slog.New(slog.DiscardHandler)

	options := ttrpcx.ServerOptions{
		Address: address,
		Logger:  quiet,
		Interceptors: []ttrpc.StreamServerInterceptor{func(
			ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo, handler ttrpc.StreamHandler,
		) (any, error) {
			name, _ := ttrpc.GetMetadataValue(ctx, "name")
			fmt.Println("server:", info.FullMethod, name)
			return handler(ctx, stream)
		}},
	}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		fmt.Println(err)
		return
	}
	testv1.HandleTest(server, testservice.Service{})
	stop := start(server.Serve, options)

	client, err := ttrpcx.NewClient(context.Background(), ttrpcx.ClientOptions{
		Address: address,
		Logger:  quiet,
		Interceptors: []ttrpc.UnaryClientInterceptor{func(
			ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, info *ttrpc.UnaryClientInfo,
			invoke ttrpc.Invoker,
		) error {
			err := invoke(ctx, req, resp)
			fmt.Println("client:", info.FullMethod, err)
			return err
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{"name": {"koye"}})
	answer, err := testv1.CallTest(client).Unary(ctx, &testv1.UnaryRequest{Foo: "Foo", Bar: "Bar"})
	fmt.Println(answer.GetFoo(), answer.GetBar(), err)
	fmt.Println(errors.Join(client.Close(), stop()))
	// Output:
	// server: /test.v1.Test/Unary koye
	// client: /test.v1.Test/Unary <nil>
	// Foo Bar <nil>
	// <nil>
}

// In an existing server, change the line that listens and the line that serves. In an existing client, change the line
// that dials.
func ExampleServe() {
	address, remove := address()
	defer remove()

	server, err := ttrpc.NewServer()
	if err != nil {
		fmt.Println(err)
		return
	}
	testv1.RegisterTestService(server, testservice.Service{})
	l, err := ttrpcx.Listen(context.Background(), ttrpcx.ServerOptions{Address: address}) // net.Listen("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	go func() { ended <- ttrpcx.Serve(ctx, server, l) }() // server.Serve(ctx, l)

	conn, err := ttrpcx.Dial(ctx, ttrpcx.ClientOptions{Address: address}) // net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	client := ttrpc.NewClient(conn)
	answer, err := testv1.NewTestClient(client).Unary(ctx, &testv1.UnaryRequest{Foo: "Foo", Bar: "Bar"})
	fmt.Println(answer.GetFoo(), answer.GetBar(), err)

	_ = client.Close()
	stop() // open calls would still get their answers
	fmt.Println(<-ended)
	// Output:
	// Foo Bar <nil>
	// <nil>
}

// A handler checks which user calls.
func ExamplePeerFromContext() {
	address, remove := address()
	defer remove()
	options := ttrpcx.ServerOptions{Address: address, Logger: slog.New(slog.DiscardHandler)}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		fmt.Println(err)
		return
	}
	testv1.HandleTest(server, testservice.Service{Begin: func(ctx context.Context, _ string) error {
		peer, _ := ttrpcx.PeerFromContext(ctx)
		if c := peer.Credentials; c != nil { // nil on platforms without credentials
			fmt.Println("the caller is this process's user:", int(c.UID) == os.Geteuid())
		}
		return nil
	}})
	stop := start(server.Serve, options)

	client, err := ttrpcx.NewClient(context.Background(), ttrpcx.ClientOptions{
		Address: address, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = testv1.CallTest(client).Unary(context.Background(), &testv1.UnaryRequest{})
	fmt.Println(err, errors.Join(client.Close(), stop()))
	// Output:
	// the caller is this process's user: true
	// <nil> <nil>
}
