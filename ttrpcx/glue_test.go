package ttrpcx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// kinds has a call of each kind, which returns with what the server ended it: nil for a regular end.
var kinds = map[string]func(context.Context, testv1.TestClient) error{
	testv1.Test_Unary_FullMethod: func(ctx context.Context, client testv1.TestClient) error {
		_, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: "foo"})
		return err
	},
	testv1.Test_Split_FullMethod: func(ctx context.Context, client testv1.TestClient) error {
		stream, err := client.Split(ctx, &testv1.SplitRequest{Text: "a b"})
		if err != nil {
			return err
		}
		return receiveAll(stream.Recv)
	},
	testv1.Test_Join_FullMethod: func(ctx context.Context, client testv1.TestClient) error {
		stream, err := client.Join(ctx)
		if err != nil {
			return err
		}
		_ = stream.Send(&testv1.JoinRequest{Word: "a"}) // receiving tells what is wrong
		_, err = stream.CloseAndRecv()
		return err
	},
	testv1.Test_Echo_FullMethod: func(ctx context.Context, client testv1.TestClient) error {
		stream, err := client.Echo(ctx)
		if err != nil {
			return err
		}
		_ = stream.Send(&testv1.EchoRequest{Message: "a"})
		_ = stream.CloseSend()
		return receiveAll(stream.Recv)
	},
}

func receiveAll[M any](recv func() (M, error)) error {
	for {
		if _, err := recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// serveGenerated serves the tests' service with NewServer and returns its address and what stops it.
func serveGenerated(
	t *testing.T, o ttrpcx.ServerOptions, service testservice.Service,
) (address string, stop func() error) {
	t.Helper()
	o.Address, o.Logger = socketPath(t), slog.New(slog.DiscardHandler)
	server, err := ttrpcx.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	testv1.HandleTest(server, service)
	l, err := ttrpcx.Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() { _ = stop() })
	return o.Address, stop
}

func newClient(t *testing.T, address string, interceptors ...ttrpc.UnaryClientInterceptor) *ttrpcx.Client {
	t.Helper()
	client, err := ttrpcx.NewClient(t.Context(), ttrpcx.ClientOptions{
		Address: address, Logger: slog.New(slog.DiscardHandler), Interceptors: interceptors,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// sightings are the calls that an interceptor has seen, by method: their metadata and their code in the end.
type sightings struct {
	mu  sync.Mutex
	all map[string]string
}

func (s *sightings) add(method string, md []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[method] = fmt.Sprint(md, status.Code(err))
}

func (s *sightings) server(
	ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo, handler ttrpc.StreamHandler,
) (any, error) {
	resp, err := handler(ctx, stream)
	md, _ := ttrpc.GetMetadata(ctx)
	s.add(info.FullMethod, md["key"], err)
	return resp, err
}

func (s *sightings) client(
	ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, info *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker,
) error {
	err := invoke(ctx, req, resp)
	var md []string
	for _, kv := range req.GetMetadata() {
		md = append(md, kv.GetValue())
	}
	s.add(info.FullMethod, md, errors.Join(err, status.ErrorProto(resp.GetStatus())))
	return err
}

func TestInterceptorsSeeAllKinds(t *testing.T) {
	for _, code := range []codes.Code{codes.OK, codes.NotFound} {
		t.Run(code.String(), func(t *testing.T) {
			noLeaks(t)
			server, client := sightings{all: map[string]string{}}, sightings{all: map[string]string{}}
			address, _ := serveGenerated(t,
				ttrpcx.ServerOptions{Interceptors: []ttrpc.StreamServerInterceptor{server.server}},
				testservice.Service{Begin: func(context.Context, string) error { return status.Error(code, "") }})
			c := testv1.CallTest(newClient(t, address, client.client))
			ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"key": {"a", "b"}})
			want := map[string]string{}
			for method, call := range kinds {
				want[method] = fmt.Sprint("[a b] ", code)
				if err := call(ctx, c); status.Code(err) != code {
					t.Errorf("%s: %v, want code %v", method, err, code)
				}
			}
			if !maps.Equal(server.all, want) {
				t.Errorf("the server's interceptor saw %v, want %v", server.all, want)
			}
			if !maps.Equal(client.all, want) {
				t.Errorf("the client's interceptor saw %v, want %v", client.all, want)
			}
		})
	}
}

// TestStreamDeadline wants the deadline of a stream's context to end it on both sides.
func TestStreamDeadline(t *testing.T) {
	noLeaks(t)
	ended := make(chan error, 1)
	address, _ := serveGenerated(t, ttrpcx.ServerOptions{}, testservice.Service{
		Begin: func(ctx context.Context, _ string) error {
			if _, ok := ctx.Deadline(); !ok {
				ended <- errors.New("no deadline came with the stream")
				return nil
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		},
	})
	client := testv1.CallTest(newClient(t, address))
	for method, open := range map[string]func(context.Context) (recv func() error, err error){
		"Split": func(ctx context.Context) (func() error, error) {
			stream, err := client.Split(ctx, &testv1.SplitRequest{})
			return func() error { return receiveAll(stream.Recv) }, err
		},
		"Join": func(ctx context.Context) (func() error, error) {
			stream, err := client.Join(ctx)
			return func() error { return stream.RecvMsg(new(testv1.JoinResponse)) }, err
		},
		"Echo": func(ctx context.Context) (func() error, error) {
			stream, err := client.Echo(ctx)
			return func() error { return receiveAll(stream.Recv) }, err
		},
	} {
		var recv func() error
		err := context.DeadlineExceeded
		// A busy machine may need longer than a short timeout to open a stream.
		for timeout := 50 * time.Millisecond; err != nil && timeout < patience; timeout *= 2 {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			recv, err = open(ctx)
		}
		if err != nil {
			t.Fatal(method, err)
		}
		if err := recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s: the client got %v", method, err)
		}
		if err := <-ended; err != context.DeadlineExceeded {
			t.Errorf("%s: the handler got %v", method, err)
		}
	}
}

// TestStreamMetadata opens many streams at once, each with metadata of its own.
func TestStreamMetadata(t *testing.T) {
	const streams = 1000
	noLeaks(t)
	address, _ := serveGenerated(t, ttrpcx.ServerOptions{MaxCalls: streams}, testservice.Service{
		Text: func(ctx context.Context, text string) (string, error) {
			md, _ := ttrpc.GetMetadata(ctx)
			return text + strings.Join(md["key"], ","), nil
		},
	})
	client := testv1.CallTest(newClient(t, address))
	var all, answered sync.WaitGroup
	answered.Add(streams)
	for i := range streams {
		all.Go(func() {
			done := sync.OnceFunc(answered.Done)
			defer done()
			id := fmt.Sprint(i)
			stream, err := client.Echo(ttrpc.WithMetadata(t.Context(), ttrpc.MD{"key": {id, "b"}}))
			if err != nil {
				t.Error(err)
				return
			}
			if err := stream.Send(&testv1.EchoRequest{Message: id + ":"}); err != nil {
				t.Error(err)
			}
			if m, err := stream.Recv(); err != nil || m.GetMessage() != id+":"+id+",b" {
				t.Errorf("stream %s answered %v, %v", id, m, err)
			}
			done()
			answered.Wait() // so that all are open at once
			_ = stream.CloseSend()
			if err := receiveAll(stream.Recv); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestStreamErrors(t *testing.T) {
	noLeaks(t)
	detailed, err := status.New(codes.NotFound, "no such thing").WithDetails(wrapperspb.String("detail"))
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{}, 1)
	address, stop := serveGenerated(t, ttrpcx.ServerOptions{ShutdownTimeout: time.Millisecond}, testservice.Service{
		Begin: func(ctx context.Context, _ string) error {
			if _, ok := ttrpc.GetMetadataValue(ctx, "wait"); !ok {
				return detailed.Err()
			}
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	})
	client := testv1.CallTest(newClient(t, address))
	for method, call := range kinds {
		err := call(t.Context(), client)
		if len(status.Convert(err).Details()) != 1 || status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v, want the server's error with its details", method, err)
		}
	}
	wait := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"wait": {"yes"}})
	for method, call := range kinds {
		ctx, cancel := context.WithCancel(wait)
		go func() { <-began; cancel() }()
		if err := call(ctx, client); status.Code(err) != codes.Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want code Canceled", method, err)
		}
	}
	var lost sync.WaitGroup
	for method, call := range kinds {
		lost.Go(func() {
			if err := call(wait, client); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v, want code Unavailable because the server stops", method, err)
			}
		})
		<-began
	}
	wantError(t, stop(), "cut off")
	lost.Wait()
	for method, call := range kinds {
		if err := call(wait, client); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want code Unavailable because there is no server", method, err)
		}
	}
}

func TestStreamRefused(t *testing.T) {
	noLeaks(t)
	refused := status.Error(codes.PermissionDenied, "refused")
	refuse := func(context.Context, ttrpc.StreamServer, *ttrpc.StreamServerInfo, ttrpc.StreamHandler) (any, error) {
		return nil, refused
	}
	begin := func(_ context.Context, method string) error {
		t.Errorf("%s was called", method)
		return nil
	}
	address, _ := serveGenerated(t, ttrpcx.ServerOptions{
		Interceptors: []ttrpc.StreamServerInterceptor{refuse},
	}, testservice.Service{Begin: begin})
	byServer := testv1.CallTest(newClient(t, address))
	address, _ = serveGenerated(t, ttrpcx.ServerOptions{}, testservice.Service{Begin: begin})
	byClient := testv1.CallTest(newClient(t, address, func(
		context.Context, *ttrpc.Request, *ttrpc.Response, *ttrpc.UnaryClientInfo, ttrpc.Invoker,
	) error {
		return refused
	}))
	for method, call := range kinds {
		for _, client := range []testv1.TestClient{byServer, byClient} {
			if err := call(t.Context(), client); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s: %v, want a refusal", method, err)
			}
		}
	}
}

// TestAbandonedStreams has callers go away in the middle of what a server sends, half of them while they receive. ttrpc
// would hold up all other calls of the connection for a second for each such stream.
func TestAbandonedStreams(t *testing.T) {
	const (
		streams  = 20
		messages = 100                       // more than ttrpc keeps for a stream
		limit    = streams * time.Second / 4 // half of what one half would take
	)
	noLeaks(t)
	gone := make(chan struct{})
	address, _ := serveGenerated(t, ttrpcx.ServerOptions{}, testservice.Service{
		Text: func(_ context.Context, text string) (string, error) {
			if text == "go" {
				<-gone
			}
			return text, nil
		},
	})
	connection := newClient(t, address)
	client := testv1.CallTest(connection)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var receiving sync.WaitGroup
	for i := range streams {
		stream, err := client.Split(ctx, &testv1.SplitRequest{Text: "first go" + strings.Repeat(" word", messages)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			receiving.Go(func() {
				if err := receiveAll(stream.Recv); status.Code(err) != codes.Canceled {
					t.Errorf("the end of a cancelled stream is %v", err)
				}
			})
		}
	}
	cancel()
	receiving.Wait()
	close(gone)
	ctx, cancel = context.WithTimeout(t.Context(), limit)
	defer cancel()
	for range streams {
		if _, err := client.Unary(ctx, &testv1.UnaryRequest{}); err != nil {
			t.Fatalf("a call after %d streams were abandoned: %v", streams, err)
		}
	}
	// The client forgets them when the server has ended them, and then has no goroutine for them any more.
	eventually(t, "end of the goroutines of abandoned streams", func() bool { return !running("clientStream") })
}

// running reports whether a goroutine runs a function with this in its name.
func running(name string) bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), name)
}

// TestStreamAfterItsEnd uses streams that have ended. A server must not take one that was cancelled for a complete one.
func TestStreamAfterItsEnd(t *testing.T) {
	noLeaks(t)
	began, handled := make(chan struct{}, 1), make(chan error, 1)
	address, stop := serveGenerated(t, ttrpcx.ServerOptions{
		ShutdownTimeout: time.Millisecond,
		Interceptors: []ttrpc.StreamServerInterceptor{func(
			ctx context.Context, stream ttrpc.StreamServer, _ *ttrpc.StreamServerInfo, handler ttrpc.StreamHandler,
		) (any, error) {
			began <- struct{}{}
			resp, err := handler(ctx, stream)
			handled <- err
			return resp, err
		}},
	}, testservice.Service{})
	client := testv1.CallTest(newClient(t, address))

	echo, err := client.Echo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-began
	if err := errors.Join(echo.CloseSend(), receiveAll(echo.Recv), <-handled); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, received := echo.Recv()
		if sent := echo.Send(new(testv1.EchoRequest)); received != io.EOF || sent != io.EOF {
			t.Errorf("received %v, sent %v after the end, want io.EOF", received, sent)
		}
		if err := echo.CloseSend(); err != nil {
			t.Errorf("closed after the end: %v", err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	join, err := client.Join(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-began
	if err := join.Send(&testv1.JoinRequest{Word: "a"}); err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 2 {
		sent, closed := join.Send(&testv1.JoinRequest{Word: "b"}), join.CloseSend()
		for _, err := range []error{sent, closed, join.RecvMsg(new(testv1.JoinResponse))} {
			if status.Code(err) != codes.Canceled {
				t.Errorf("the cancelled stream's error is %v", err)
			}
		}
	}
	_ = stop()
	if err := <-handled; err == nil {
		t.Error("the handler took the cancelled stream for one that was complete")
	}
}

func TestCloseWithOpenStreams(t *testing.T) {
	noLeaks(t)
	began := make(chan struct{})
	address, _ := serveGenerated(t, ttrpcx.ServerOptions{}, testservice.Service{
		Begin: func(ctx context.Context, _ string) error {
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	})
	client := newClient(t, address)
	var calls sync.WaitGroup
	for method, call := range kinds {
		calls.Go(func() {
			if err := call(t.Context(), testv1.CallTest(client)); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v, want code Unavailable", method, err)
			}
		})
		<-began
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	calls.Wait()
}

// TestClientInterceptorsThatMisbehave wants an error of each stream, in time, and nothing left behind.
func TestClientInterceptorsThatMisbehave(t *testing.T) {
	invalid := status.Error(codes.InvalidArgument, "the server's")
	refused := status.Error(codes.PermissionDenied, "refused")
	errWait := errors.New("let the stream stay open")
	began := make(chan struct{}, 1)
	for name, c := range map[string]struct {
		intercept func(context.Context, *ttrpc.Request, *ttrpc.Response, ttrpc.Invoker) error
		begin     error // of the handler
		want      codes.Code
	}{
		"opens nothing": {
			func(context.Context, *ttrpc.Request, *ttrpc.Response, ttrpc.Invoker) error { return nil },
			nil, codes.Internal,
		},
		"panics": {
			func(context.Context, *ttrpc.Request, *ttrpc.Response, ttrpc.Invoker) error { panic("oops") },
			nil, codes.Internal,
		},
		"panics late": {
			func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, invoke ttrpc.Invoker) error {
				_ = invoke(ctx, req, resp)
				panic("oops")
			}, nil, codes.Internal,
		},
		"ends its goroutine": {
			func(context.Context, *ttrpc.Request, *ttrpc.Response, ttrpc.Invoker) error {
				runtime.Goexit()
				return nil
			},
			nil, codes.Internal,
		},
		"invokes twice": {
			func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, invoke ttrpc.Invoker) error {
				_ = invoke(ctx, req, resp)
				return invoke(ctx, req, resp)
			}, invalid, codes.InvalidArgument,
		},
		"does not wait, and fails": {
			func(ctx context.Context, req *ttrpc.Request, _ *ttrpc.Response, invoke ttrpc.Invoker) error {
				go func() { _ = invoke(ctx, req, new(ttrpc.Response)) }()
				return refused
			}, nil, codes.PermissionDenied,
		},
		"gives up on a stream that is open": {
			func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, invoke ttrpc.Invoker) error {
				ctx, cancel := context.WithCancel(ctx)
				go func() { <-began; cancel() }()
				if err := invoke(ctx, req, resp); !errors.Is(err, context.Canceled) {
					return err
				}
				return refused
			}, errWait, codes.PermissionDenied,
		},
		"does not wait for a stream that is open": {
			func(ctx context.Context, req *ttrpc.Request, _ *ttrpc.Response, invoke ttrpc.Invoker) error {
				go func() { _ = invoke(ctx, req, new(ttrpc.Response)) }()
				<-began
				return nil
			}, errWait, codes.Internal,
		},
		"hides an error": {
			func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, invoke ttrpc.Invoker) error {
				err := invoke(ctx, req, resp)
				resp.Status = nil
				return err
			}, invalid, codes.OK,
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			options := ttrpcx.ServerOptions{ShutdownTimeout: time.Millisecond}
			address, _ := serveGenerated(t, options, testservice.Service{
				Begin: func(ctx context.Context, _ string) error {
					if c.begin == errWait {
						began <- struct{}{}
						<-ctx.Done()
						return ctx.Err()
					}
					return c.begin
				},
			})
			client := testv1.CallTest(newClient(t, address, func(
				ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response,
				info *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker,
			) error {
				if info.FullMethod == testv1.Test_Unary_FullMethod {
					return invoke(ctx, req, resp)
				}
				return c.intercept(ctx, req, resp, invoke)
			}))
			for _, method := range slices.Sorted(maps.Keys(kinds)) {
				if method == testv1.Test_Unary_FullMethod {
					continue
				}
				if err := kinds[method](t.Context(), client); status.Code(err) != c.want {
					t.Errorf("%s: %v, want code %v", method, err, c.want)
				}
			}
		})
	}
}
