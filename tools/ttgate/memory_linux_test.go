package main_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
)

// TestMemory has clients send to a backend that is stopped, as by a debugger: the gate must keep what they send.
func TestMemory(t *testing.T) {
	server, backend := probe(t)
	g := gate(t, backend, "-max-memory", "16MiB", "-max-message", "4MiB", "-max-calls", "8")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := probev1.NewProbeClient(g.grpc())
	var streams []probev1.Probe_JoinClient
	for i := range 5 { // of which two or three may fill what one address may have
		stream, err := client.Join(ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("stream ", i)
		if err := stream.Send(&probev1.JoinRequest{Act: probev1.Act_ACT_HANG, Data: []byte(name)}); err != nil {
			t.Fatal(err)
		}
		server.WaitFor("hang begins: " + name)
		streams = append(streams, stream)
	}
	server.Signal(syscall.SIGSTOP)
	ended := make(chan error, len(streams))
	for _, stream := range streams {
		go func() {
			for stream.Send(&probev1.JoinRequest{Data: make([]byte, 1<<20)}) == nil {
			}
			ended <- stream.RecvMsg(new(probev1.JoinResponse))
		}()
	}
	for range 2 {
		err := <-ended
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "-max-memory") {
			t.Errorf("a stream ended with %v, want ResourceExhausted", err)
		}
	}
	check, err := healthv1.NewHealthClient(g.neighbour()).Check(ctx, new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Errorf("a call from another address: %v, %v", check, err)
	}
}
