//go:build !ttrpcx

package main

import (
	"context"
	"net"

	"github.com/containerd/ttrpc"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// serve starts a server. shutdown lets it end well.
func serve(path string, svc testv1.TestService) (shutdown func() error, err error) {
	server, err := ttrpc.NewServer()
	if err != nil {
		return nil, err
	}
	testv1.RegisterTestService(server, svc)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	go func() { _ = server.Serve(context.Background(), l) }()
	return func() error { return server.Shutdown(context.Background()) }, nil
}

func dial(path string) (testv1.TestClient, func() error, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, nil, err
	}
	client := ttrpc.NewClient(conn)
	return testv1.NewTestClient(client), client.Close, nil
}
