package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

func TestChain(t *testing.T) {
	var trace []string
	var infos []ttrpc.StreamServerInfo
	named := func(name string) ttrpc.StreamServerInterceptor {
		return func(ctx context.Context, s ttrpc.StreamServer, info *ttrpc.StreamServerInfo, next ttrpc.StreamHandler,
		) (any, error) {
			trace = append(trace, name+" in")
			infos = append(infos, *info)
			resp, err := next(ctx, s)
			trace = append(trace, name+" out")
			return resp, err
		}
	}
	for n, test := range map[int][]string{
		0: {"handler"},
		1: {"0 in", "handler", "0 out"},
		2: {"0 in", "1 in", "handler", "1 out", "0 out"},
		4: {"0 in", "1 in", "2 in", "3 in", "handler", "3 out", "2 out", "1 out", "0 out"},
	} {
		var interceptors []ttrpc.StreamServerInterceptor
		for i := range n {
			interceptors = append(interceptors, named(fmt.Sprint(i)))
		}
		chain := interceptor.Chain(interceptors...)
		clear(interceptors) // the chain must not depend on the caller's slice
		client, _ := serve(t, chain, all(func(context.Context) error {
			trace = append(trace, "handler")
			return nil
		}))
		for _, kind := range kinds {
			trace, infos = nil, nil
			if err := kind.call(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(trace, test) {
				t.Errorf("%d interceptors, %s: %v", n, kind.name, trace)
			}
			for _, info := range infos {
				if want := (ttrpc.StreamServerInfo{
					FullMethod:      "/test.v1.Test/" + kind.name,
					StreamingClient: kind.name == "Join" || kind.name == "Echo",
					StreamingServer: kind.name == "Split" || kind.name == "Echo",
				}); info != want {
					t.Errorf("info is %+v, want %+v", info, want)
				}
			}
		}
	}
}

// Users' interceptors may do things that the interceptors of this package do not do.
func TestUsersInterceptors(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		do   ttrpc.StreamServerInterceptor
		want map[string]string
	}{
		"refuse": {
			func(context.Context, ttrpc.StreamServer, *ttrpc.StreamServerInfo, ttrpc.StreamHandler) (any, error) {
				return nil, refused
			},
			map[string]string{"Unary": "Unknown", "Split": "Unknown", "Join": "Unknown", "Echo": "Unknown"},
		},
		"answer with another type": {
			func(context.Context, ttrpc.StreamServer, *ttrpc.StreamServerInfo, ttrpc.StreamHandler) (any, error) {
				return "answer", nil
			},
			map[string]string{"Unary": "Internal", "Split": "OK", "Join": "Internal", "Echo": "OK"},
		},
		"send on every call": {
			func(ctx context.Context, s ttrpc.StreamServer, info *ttrpc.StreamServerInfo, next ttrpc.StreamHandler,
			) (any, error) {
				if info.StreamingClient && !info.StreamingServer { // its client accepts no messages
					return next(ctx, s)
				}
				return nil, s.SendMsg(&testv1.EchoResponse{})
			},
			map[string]string{"Unary": "Unknown", "Split": "OK", "Join": "OK", "Echo": "OK"},
		},
		"fail to receive": {
			func(ctx context.Context, _ ttrpc.StreamServer, _ *ttrpc.StreamServerInfo, next ttrpc.StreamHandler,
			) (any, error) {
				return next(ctx, failingStream{refused})
			},
			map[string]string{"Unary": "Unknown", "Split": "Unknown", "Join": "Unknown", "Echo": "Unknown"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, test.do, service{})
			for _, kind := range kinds {
				if err := kind.call(t.Context(), client); codeOf(err) != test.want[kind.name] {
					t.Errorf("%s: %v, want %s", kind.name, err, test.want[kind.name])
				}
				alive(t, client)
			}
		})
	}
}

type failingStream struct{ err error }

func (s failingStream) RecvMsg(any) error { return s.err }
func (s failingStream) SendMsg(any) error { return s.err }

// With the order of the package's documentation, the line of a call shows the answer that its caller gets.
func ExampleChain() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case "time", "duration", "stack": // different in each run
				return slog.Attr{}
			case "request_bytes", "response_bytes": // to keep the lines short
				return slog.Attr{}
			}
			return a
		},
	}))
	chain := interceptor.Chain(
		interceptor.Log(interceptor.LogOptions{Logger: logger}),
		interceptor.Recover(logger),
		interceptor.Deadline(10*time.Millisecond),
		interceptor.Sendable(),
	)
	unary := interceptor.Unary(chain) // for ttrpc.WithUnaryServerInterceptor

	request := func(m any) error {
		m.(*testv1.UnaryRequest).Foo = "x"
		return nil
	}
	for _, behave := range []func(context.Context) error{
		func(context.Context) error { return nil },
		func(context.Context) error { panic("a bug") },
		func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("get x: %w", ctx.Err()) },
	} {
		_, _ = unary(context.Background(), request, &ttrpc.UnaryServerInfo{FullMethod: "/app.App/Get"},
			func(ctx context.Context, unmarshal func(any) error) (any, error) {
				var req testv1.UnaryRequest
				if err := unmarshal(&req); err != nil {
					return nil, err
				}
				return &testv1.UnaryResponse{Foo: req.GetFoo()}, behave(ctx)
			})
	}
	// Output:
	// level=INFO msg="call served" method=/app.App/Get code=OK
	// level=ERROR msg="handler panicked" method=/app.App/Get panic="a bug"
	// level=ERROR msg="call served" method=/app.App/Get code=Internal error="internal error, see the server's log"
	// level=INFO msg="call served" method=/app.App/Get code=DeadlineExceeded error="get x: context deadline exceeded"
}

// BenchmarkChain shows what the chain costs around a handler that does nothing. "none" is the same call without a
// chain.
func BenchmarkChain(b *testing.B) {
	for _, bench := range []struct {
		name  string
		chain ttrpc.UnaryServerInterceptor
	}{
		{"none", func(ctx context.Context, u ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, m ttrpc.Method) (any, error) {
			return m(ctx, u)
		}},
		{"unlogged", unaryChain(slog.DiscardHandler, 0)},
		{"unlogged, with a deadline", unaryChain(slog.DiscardHandler, time.Hour)},
		{"errors logged", unaryChain(slog.NewJSONHandler(discard{}, &slog.HandlerOptions{Level: slog.LevelError}), 0)},
		{"logged", unaryChain(slog.NewJSONHandler(discard{}, nil), 0)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			resp := &testv1.UnaryResponse{Foo: "a", Bar: "b"}
			unmarshal := func(any) error { return nil }
			method := func(_ context.Context, unmarshal func(any) error) (any, error) {
				var req testv1.UnaryRequest
				return resp, unmarshal(&req)
			}
			info := &ttrpc.UnaryServerInfo{FullMethod: "/test.v1.Test/Unary"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.chain(b.Context(), unmarshal, info, method); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func unaryChain(handler slog.Handler, deadline time.Duration) ttrpc.UnaryServerInterceptor {
	logger := slog.New(handler)
	return interceptor.Unary(interceptor.Chain(
		interceptor.Log(interceptor.LogOptions{Logger: logger}),
		interceptor.Recover(logger),
		interceptor.Deadline(deadline),
		interceptor.Sendable(),
	))
}

// discard is a writer that slog does not recognize as io.Discard.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
