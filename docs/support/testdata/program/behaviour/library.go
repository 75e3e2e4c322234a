//go:build ttrpcx

package main

import (
	"context"
	"log/slog"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

var quiet = slog.New(slog.DiscardHandler)

// serve starts a server. shutdown lets it end well.
func serve(path string, svc testv1.TestService) (shutdown func() error, err error) {
	options := ttrpcx.ServerOptions{Address: "unix://" + path, Logger: quiet, ShutdownTimeout: patience}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		return nil, err
	}
	testv1.HandleTest(server, svc)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := ttrpcx.Listen(ctx, options)
	if err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	return func() error { cancel(); return <-ended }, nil
}

func dial(path string) (testv1.TestClient, func() error, error) {
	options := ttrpcx.ClientOptions{Address: "unix://" + path, Logger: quiet}
	client, err := ttrpcx.NewClient(context.Background(), options)
	if err != nil {
		return nil, nil, err
	}
	return testv1.CallTest(client), client.Close, nil
}
