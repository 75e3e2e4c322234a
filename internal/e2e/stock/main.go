// Stock is a server and a client of the tests' service that use ttrpc without this project's library. Tests run them
// with this project's client and server, also built with an older ttrpc.
//
// Usage: stock serve PATH | stock call PATH. PATH is that of a unix socket. "serve" prints "serving" on standard error
// when it listens. "call" makes a call of each kind and fails if an answer is wrong.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
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
	testv1.RegisterTestService(server, testservice.Service{})
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
	client := ttrpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	return testservice.CallAll(context.Background(), testv1.NewTestClient(client))
}
