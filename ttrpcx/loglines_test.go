package ttrpcx_test

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// TestLogLines floods the log through calls. The lines of a rare error and of the server itself are there all the same,
// and so are the numbers of lines that are left out. If a minute ends during the test, there are more lines.
func TestLogLines(t *testing.T) {
	const flood, limit = 500, 3
	for _, c := range []struct{ max, least, most int }{{limit, limit, 5 * limit}, {-1, flood, flood}} {
		log := new(journal)
		o := ttrpcx.ServerOptions{Address: socketPath(t), Logger: log.logger(), MaxLogLines: c.max}.WithDefaults()
		server, err := ttrpcx.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		var broken atomic.Bool
		testv1.HandleTest(server, unary(func(ctx context.Context) error {
			o.Logger.InfoContext(ctx, "line of a handler")
			if broken.Load() {
				return status.Error(codes.Internal, "it broke")
			}
			return nil
		}))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		l, err := ttrpcx.Listen(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- server.Serve(ctx, l) }()
		client := testv1.CallTest(newClient(t, o.Address))
		for i := range flood + 1 {
			broken.Store(i == flood)
			_, err := client.Unary(t.Context(), &testv1.UnaryRequest{})
			if want := map[bool]codes.Code{true: codes.Internal}[i == flood]; status.Code(err) != want {
				t.Fatal(err)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if n := len(log.lines(`msg="line of a handler"`)); n < c.least || n > c.most+1 {
			t.Errorf("limit %d: %d lines of the handler, want %d", c.max, n, c.least)
		}
		if n := len(log.lines(`msg="call served"`, "code=OK")); n < c.least || n > c.most {
			t.Errorf("limit %d: %d lines of calls, want %d", c.max, n, c.least)
		}
		for _, text := range []string{"code=Internal", `msg="server start"`, `msg="server stop"`} {
			if n := len(log.lines(text)); n != 1 {
				t.Errorf("limit %d: %d lines with %q, want 1", c.max, n, text)
			}
		}
		for _, held := range []string{`message="line of a handler" lines=`, `message="call served" code=OK lines=`} {
			if n := len(log.lines(held)); (n > 0) != (c.max > 0) {
				t.Errorf("limit %d: %d lines with %q", c.max, n, held)
			}
		}
	}
}
