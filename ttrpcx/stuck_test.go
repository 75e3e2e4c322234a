package ttrpcx_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// TestDeadlinesWhileServerTakesNothing makes calls that are too large for the kernel's buffers to a server that is
// paused.
func TestDeadlinesWhileServerTakesNothing(t *testing.T) {
	path := filepath.Dir(filepath.Dir(socketPath(t))) + "/paused"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	options := ttrpcx.ClientOptions{Address: "unix://" + path, Logger: new(journal).logger()}
	conn, err := ttrpcx.Dial(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	start := time.Now()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			foo := &testv1.UnaryRequest{Foo: strings.Repeat("x", 1<<20)}
			_, err := testv1.NewTestClient(client).Unary(ctx, foo)
			if ctx.Err() == nil && status.Code(err) != codes.Unavailable { // it finds no room
				t.Errorf("a call ended with %v before its deadline", err)
			}
		})
	}
	group.Wait()
	if took := time.Since(start); took > patience {
		t.Errorf("calls with a deadline of 1 s took %v", took)
	}
}
