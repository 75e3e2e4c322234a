package interceptor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// service is the tests' service. A test replaces a method by setting the field of that name.
type service struct {
	testservice.Service

	unary func(context.Context, *testv1.UnaryRequest) (*testv1.UnaryResponse, error)
	split func(context.Context, *testv1.SplitRequest, testv1.Test_SplitServer) error
	join  func(context.Context, testv1.Test_JoinServer) (*testv1.JoinResponse, error)
	echo  func(context.Context, testv1.Test_EchoServer) error
}

func (s service) Unary(ctx context.Context, req *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
	return either(s.unary != nil, s.unary, s.Service.Unary)(ctx, req)
}

func (s service) Split(ctx context.Context, req *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
	return either(s.split != nil, s.split, s.Service.Split)(ctx, req, stream)
}

func (s service) Join(ctx context.Context, stream testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
	return either(s.join != nil, s.join, s.Service.Join)(ctx, stream)
}

func (s service) Echo(ctx context.Context, stream testv1.Test_EchoServer) error {
	return either(s.echo != nil, s.echo, s.Service.Echo)(ctx, stream)
}

func either[F any](set bool, body, byDefault F) F {
	if set {
		return body
	}
	return byDefault
}

// registrar puts an interceptor around the streaming methods of a service.
type registrar struct {
	server  *ttrpc.Server
	streams ttrpc.StreamServerInterceptor
}

func (r registrar) RegisterService(name string, desc *ttrpc.ServiceDesc) {
	r.server.RegisterService(name, interceptor.Streams(name, desc, r.streams))
}

// serve serves svc with chain around unary calls and streams, and returns a client. Both end when stop is called, or at
// the end of the test.
func serve(t testing.TB, chain ttrpc.StreamServerInterceptor, svc service, opts ...ttrpc.ClientOpts,
) (client *ttrpc.Client, stop func()) {
	t.Helper()
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(interceptor.Unary(chain)))
	if err != nil {
		t.Fatal(err)
	}
	testv1.HandleTest(registrar{server, chain}, svc)
	near, far := net.Pipe()
	client = ttrpc.NewClient(near, opts...)
	served := make(chan struct{})
	go func() {
		defer close(served)
		// The listener ends after its only connection, which stays open.
		if err := server.Serve(context.Background(), &listener{conn: far}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		<-served
		client.Close()
		server.Close()
	})
	t.Cleanup(stop)
	return client, stop
}

// listener accepts one connection.
type listener struct{ conn net.Conn }

func (l *listener) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *listener) Close() error { return nil }

func (l *listener) Addr() net.Addr { return nil }

// logBuffer collects the lines of a logger.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// take returns the lines written so far, without their time, and removes them.
func (l *logBuffer) take(t testing.TB) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []map[string]any
	for dec := json.NewDecoder(&l.b); ; {
		line := make(map[string]any)
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return lines
		} else if err != nil {
			t.Fatal(err)
		}
		delete(line, "time")
		lines = append(lines, line)
	}
}

// one returns the line written so far. The test fails unless there is exactly one.
func (l *logBuffer) one(t testing.TB) map[string]any {
	t.Helper()
	lines := l.take(t)
	if len(lines) != 1 {
		t.Fatalf("%d lines, want 1: %v", len(lines), lines)
	}
	return lines[0]
}

// kinds has a function for each kind of call. The texts in the request are "a" and "b", and the same in the response.
var kinds = []struct {
	name string
	call func(context.Context, *ttrpc.Client) error
}{
	{"Unary", func(ctx context.Context, c *ttrpc.Client) error {
		_, err := testv1.NewTestClient(c).Unary(ctx, &testv1.UnaryRequest{Foo: "a", Bar: "b"})
		return err
	}},
	{"Split", func(ctx context.Context, c *ttrpc.Client) error {
		stream, err := testv1.NewTestClient(c).Split(ctx, &testv1.SplitRequest{Text: "a b"})
		if err != nil {
			return err
		}
		return drain(stream.Recv)
	}},
	{"Join", func(ctx context.Context, c *ttrpc.Client) error {
		stream, err := testv1.NewTestClient(c).Join(ctx)
		if err != nil {
			return err
		}
		for _, word := range []string{"a", "b"} {
			if err := stream.Send(&testv1.JoinRequest{Word: word}); err != nil {
				return err
			}
		}
		_, err = stream.CloseAndRecv()
		return err
	}},
	{"Echo", func(ctx context.Context, c *ttrpc.Client) error {
		stream, err := testv1.NewTestClient(c).Echo(ctx)
		if err != nil {
			return err
		}
		for _, message := range []string{"a", "b"} {
			if err := stream.Send(&testv1.EchoRequest{Message: message}); err != nil {
				return err
			}
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		return drain(stream.Recv)
	}},
}

// drain receives until the end of a stream.
func drain[M any](recv func() (M, error)) error {
	for {
		if _, err := recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// all returns a service whose methods all call f. Methods with a response return one, also together with an error.
func all(f func(context.Context) error) service {
	return service{
		unary: func(ctx context.Context, _ *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
			return &testv1.UnaryResponse{Foo: "answer"}, f(ctx)
		},
		split: func(ctx context.Context, _ *testv1.SplitRequest, _ testv1.Test_SplitServer) error {
			return f(ctx)
		},
		join: func(ctx context.Context, _ testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
			return &testv1.JoinResponse{Text: "answer"}, f(ctx)
		},
		echo: func(ctx context.Context, _ testv1.Test_EchoServer) error { return f(ctx) },
	}
}

// alive checks that the client's connection still works. It calls a method that the server does not have, because the
// tests' handlers do not always answer.
func alive(t testing.TB, c *ttrpc.Client) {
	t.Helper()
	var resp testv1.UnaryResponse
	err := c.Call(t.Context(), "test.v1.Test", "NoSuchMethod", &testv1.UnaryRequest{}, &resp)
	if code := codeOf(err); code != "Unimplemented" {
		t.Errorf("the connection does not work any more: %v", err)
	}
}

// signalWriter is a log for one line. It closes written when the line is there.
type signalWriter struct {
	*logBuffer
	written chan struct{}
}

func (w *signalWriter) Write(p []byte) (int, error) {
	defer close(w.written)
	return w.logBuffer.Write(p)
}

func (w *signalWriter) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }
