package main_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/proctest"
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

// TestIdle opens connections and sends nothing, or only what begins HTTP/2.
func TestIdle(t *testing.T) {
	const limit = 48 << 10 // bytes that a connection may take
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	many := int(min(10_000, files.Max-100)) // both processes have files for other things
	_, backend := probe(t)
	for name, listener := range map[string]func(*running) *running{
		"all": func(g *running) *running { return g }, "grpc": (*running).alone,
	} {
		for what, greeting := range map[string]string{
			"silent": "", "greeting": http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", // SETTINGS
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				g := listener(gate(t, backend, "-max-connections", "20000", "-metrics", "127.0.0.1:0"))
				if _, err := unary(t.Context(), g.grpc(), 0); err != nil {
					t.Fatal(err)
				}
				before := g.resident(t)
				for range many {
					if _, err := io.WriteString(g.dial(), greeting); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := unary(t.Context(), g.grpc(), 0); err != nil {
					t.Error(err)
				}
				each := (g.resident(t) - before) / float64(many)
				t.Logf("%.0f bytes each", each)
				if each > limit && !proctest.Race { // which needs several times as much
					t.Errorf("a connection takes %.0f bytes, want %d at most", each, limit)
				}
			})
		}
	}
}

// resident returns how many bytes of memory the gate has.
func (g *running) resident(t *testing.T) (bytes float64) {
	t.Helper()
	_, rest, _ := strings.Cut(g.scrape(), "\nprocess_resident_memory_bytes ")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}
