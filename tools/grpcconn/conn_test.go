package grpcconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/tools/grpcconn"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// oldRuntime is the version of ttrpc that the generator is of.
const oldRuntime = "v1.2.3"

// servers are the programs that the tests call: by the runtime that they are built with.
var servers = map[string]string{}

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	code = m.Run()
}

func build(dir string) error {
	if err := proctest.Build(dir, "..", "./internal/stock"); err != nil {
		return err
	}
	servers["newest"] = proctest.Exe(dir, "stock")

	old := proctest.Exe(dir, "old")
	servers[oldRuntime] = old
	return proctest.BuildWith("github.com/containerd/ttrpc", oldRuntime, old, "..", "./internal/stock")
}

// onEach runs the test against a server of each runtime.
func onEach(t *testing.T, test func(t *testing.T, server *proctest.Process, conn *grpcconn.Conn)) {
	for runtime, program := range servers {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			path := strings.TrimPrefix(proctest.Socket(t), "unix://")
			server := proctest.Start(t, exec.Command(program, path))
			server.WaitFor("serving")
			test(t, server, grpcconn.New(func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}))
		})
	}
}

const service = "/test.v1.Test/"

var (
	split = &grpc.StreamDesc{ServerStreams: true}
	join  = &grpc.StreamDesc{ClientStreams: true}
	echo  = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
)

// stream opens a stream, sends the texts and closes the sending side.
func stream(
	t *testing.T, ctx context.Context, conn *grpcconn.Conn, desc *grpc.StreamDesc, texts ...string,
) grpc.ClientStream {
	t.Helper()
	s := open(t, ctx, conn, desc, texts...)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return s
}

// open opens a stream and sends the texts. Where the last one ends the stream, nothing may be sent after it: a server
// with the old runtime crashes if anything arrives for a stream that it has ended.
func open(
	t *testing.T, ctx context.Context, conn *grpcconn.Conn, desc *grpc.StreamDesc, texts ...string,
) grpc.ClientStream {
	t.Helper()
	name, message := "Echo", func(text string) proto.Message { return &testv1.EchoRequest{Message: text} }
	switch desc {
	case split:
		name, message = "Split", func(text string) proto.Message { return &testv1.SplitRequest{Text: text} }
	case join:
		name, message = "Join", func(text string) proto.Message { return &testv1.JoinRequest{Word: text} }
	}
	s, err := conn.NewStream(ctx, desc, service+name)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if err := s.SendMsg(message(text)); err != nil {
			t.Fatalf("send %.20q: %v", text, err)
		}
	}
	return s
}

// receive returns the text of the next message: all responses of the service have it in field 1.
func receive(s grpc.ClientStream) (string, error) {
	m := new(testv1.SplitResponse)
	err := s.RecvMsg(m)
	return m.GetWord(), err
}

// want fails the test unless the stream's messages are these and its end is err: io.EOF or a status.
func want(t *testing.T, s grpc.ClientStream, end error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if got, err := receive(s); err != nil || got != text {
			t.Fatalf("received %.80q, %v, want %.80q", got, err, text)
		}
	}
	got, err := receive(s)
	if end == io.EOF && err != io.EOF || status.Code(err) != status.Code(end) {
		t.Errorf("after the messages: received %.80q, %v, want %v", got, err, end)
	}
}

func unary(ctx context.Context, conn *grpcconn.Conn, foo string) (string, error) {
	resp := new(testv1.UnaryResponse)
	err := conn.Invoke(ctx, service+"Unary", &testv1.UnaryRequest{Foo: foo}, resp)
	return resp.GetFoo(), err
}

func TestKinds(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		ctx := t.Context()
		if got, err := unary(ctx, conn, "a"); err != nil || got != "a" {
			t.Errorf("Unary: got %q, %v", got, err)
		}
		want(t, stream(t, ctx, conn, split, "a b"), io.EOF, "a", "b")
		want(t, stream(t, ctx, conn, split, ""), io.EOF)
		want(t, stream(t, ctx, conn, join, "a", "b"), io.EOF, "a b")
		want(t, stream(t, ctx, conn, join), io.EOF, "")
		want(t, open(t, ctx, conn, join, "early"), io.EOF, "early")
		want(t, stream(t, ctx, conn, echo, "a", "", "c"), io.EOF, "a", "", "c")
		want(t, stream(t, ctx, conn, echo), io.EOF)
	})
}

// TestEnded shows that a client which goes on sending is told that nobody listens.
func TestEnded(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		s := open(t, t.Context(), conn, echo, "early")
		want(t, s, io.EOF)
		if err := s.SendMsg(&testv1.EchoRequest{}); err != io.EOF {
			t.Errorf("send after the end: %v, want EOF", err)
		}
		if err := s.CloseSend(); err != nil {
			t.Errorf("close after the end: %v", err)
		}
	})
}

func TestContextTravels(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "Name", "koye", "name", "yoke", "x-bin", "\xff")
		const seen = "map[name:[koye yoke] x-bin:[/w]] true"
		if got, err := unary(ctx, conn, "context"); err != nil || got != seen {
			t.Errorf("the handler of Unary saw %q, %v, want %q", got, err, seen)
		}
		for _, desc := range []*grpc.StreamDesc{split, join, echo} {
			want(t, stream(t, ctx, conn, desc, "context"), io.EOF, seen)
			want(t, stream(t, t.Context(), conn, desc, "context"), io.EOF, "map[] false")
		}

		bad := metadata.AppendToOutgoingContext(t.Context(), "name", "\xff")
		_, err := unary(bad, conn, "")
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), `"name"`) {
			t.Errorf("metadata that is not text: %v", err)
		}
	})
}

func TestStatusAndDetails(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		check := func(name string, err error) {
			t.Helper()
			s := status.Convert(err)
			details := s.Details()
			if s.Code() != codes.FailedPrecondition || s.Message() != "as asked" || len(details) != 1 ||
				!proto.Equal(details[0].(proto.Message), durationpb.New(1e9)) {
				t.Errorf("%s failed with %v and details %v", name, err, details)
			}
		}
		_, err := unary(t.Context(), conn, "fail")
		check("Unary", err)
		for name, s := range map[string]grpc.ClientStream{
			"Split": stream(t, t.Context(), conn, split, "a fail"),
			"Echo":  open(t, t.Context(), conn, echo, "a", "fail"),
		} {
			if got, err := receive(s); err != nil || got != "a" {
				t.Errorf("%s before it failed: %q, %v", name, got, err)
			}
			_, err = receive(s)
			check(name, err)
		}
		_, err = receive(open(t, t.Context(), conn, join, "a", "fail"))
		check("Join", err)

		err = conn.Invoke(t.Context(), service+"Nothing", new(testv1.UnaryRequest), new(testv1.UnaryResponse))
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("unknown method: %v", err)
		}
	})
}

// TestCancel shows that the end of a call's context ends the handler's and the call, at each stage of the call.
func TestCancel(t *testing.T) {
	onEach(t, func(t *testing.T, server *proctest.Process, conn *grpcconn.Conn) {
		calls := map[string]func(ctx context.Context) error{
			"Unary": func(ctx context.Context) error { _, err := unary(ctx, conn, "block"); return err },
		}
		for name, desc := range map[string]*grpc.StreamDesc{"Split": split, "Join": join, "Echo": echo} {
			calls[name] = func(ctx context.Context) error {
				s, err := conn.NewStream(ctx, desc, service+name)
				if err != nil {
					return err
				}
				if err := s.SendMsg(&testv1.EchoRequest{Message: "block"}); err != nil && err != io.EOF {
					return err
				}
				_, err = receive(s) // says why, if the stream has ended before
				return err
			}
		}
		seen := ""
		for name, call := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- call(ctx) }()
			server.WaitFor(seen + "blocks\n")
			cancel()
			if err := <-ended; status.Code(err) != codes.Canceled {
				t.Errorf("%s was cancelled and returned %v", name, err)
			}
			seen += "blocks\ncancelled\n"
			server.WaitFor(seen)
		}
		for name, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if err := call(ctx); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%s had a deadline and returned %v", name, err)
			}
			cancel()
		}
	})
}

// TestSlowReader lets a reader pause for longer than ttrpc waits.
func TestSlowReader(t *testing.T) {
	const count, pause = 200_000, 3 * time.Second
	var text strings.Builder
	for i := range count {
		fmt.Fprint(&text, i, " ")
	}
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		s := stream(t, t.Context(), conn, split, text.String())
		for i := range count {
			if i == 1000 {
				time.Sleep(pause) // this is no waiting for something: it is what is tested
			}
			if got, err := receive(s); err != nil || got != strconv.Itoa(i) {
				t.Fatalf("message %d is %q, %v", i, got, err)
			}
		}
		want(t, s, io.EOF)
	})
}

// TestReadAheadIsBounded offers more than the bound to a stream that nobody reads.
func TestReadAheadIsBounded(t *testing.T) {
	for _, size := range []int{0, 1 << 10, wire.MaxPayload - 8} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			t.Cleanup(func() { server.Close() })
			go io.Copy(io.Discard, server)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			conn := grpcconn.New(func(context.Context) (net.Conn, error) { return client, nil })
			s := stream(t, ctx, conn, split, "a")

			message, err := proto.Marshal(&testv1.SplitResponse{Word: strings.Repeat("x", size)})
			if err != nil {
				t.Fatal(err)
			}
			frame := wire.AppendFrame(nil, wire.Header{StreamID: 1, Type: wire.TypeData}, message)
			// One read comes on top, and what ttrpc has not passed on yet, which is more on a busy machine.
			const limit = grpcconn.ReadAhead + 8*wire.MaxPayload
			taken := 0
			for taken <= limit && err == nil {
				var n int
				server.SetWriteDeadline(time.Now().Add(time.Second))
				n, err = server.Write(frame)
				taken += n
			}
			if taken > limit {
				t.Errorf("the server could send %d bytes: the limit is %d", taken, limit)
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the server had to stop sending by %v", err)
			}
			cancel()
			if _, err := receive(s); status.Code(err) != codes.Canceled {
				t.Errorf("the stream that was cancelled while it waited for room ended with %v", err)
			}
		})
	}
}

// TestLostServer shows that a call ends when its server does.
func TestLostServer(t *testing.T) {
	onEach(t, func(t *testing.T, server *proctest.Process, conn *grpcconn.Conn) {
		s := stream(t, t.Context(), conn, echo, "a", "block")
		if got, err := receive(s); err != nil || got != "a" {
			t.Fatalf("received %q, %v", got, err)
		}
		_ = server.Process.Kill()
		<-server.Ended()
		want(t, s, status.Error(codes.Unavailable, ""))
		_, err := unary(t.Context(), conn, "a")
		if status.Code(err) != codes.Unavailable ||
			!errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "refused") {
			t.Errorf("without a server: %v", err)
		}
	})
}

func TestTooLarge(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		large := strings.Repeat("x", 4<<20)
		if _, err := unary(t.Context(), conn, large); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a request of over 4 MiB: %v", err)
		}
		s, err := conn.NewStream(t.Context(), echo, service+"Echo")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(&testv1.EchoRequest{Message: large}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a message of over 4 MiB: %v", err)
		}
		want(t, s, status.Error(codes.ResourceExhausted, ""))
	})
}

// TestNotTTRPC lets servers of other kinds answer.
func TestNotTTRPC(t *testing.T) {
	for name, answer := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n",
		"gRPC": "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00",
	} {
		t.Run(name, func(t *testing.T) {
			conn := grpcconn.New(func(context.Context) (net.Conn, error) {
				client, server := net.Pipe()
				go func() {
					go io.Copy(io.Discard, server)
					io.WriteString(server, answer)
				}()
				t.Cleanup(func() { server.Close() })
				return client, nil
			})
			_, err := unary(t.Context(), conn, "a")
			check := func(err error) {
				t.Helper()
				var not *grpcconn.NotTTRPCError
				if !errors.As(err, &not) || !bytes.HasPrefix([]byte(answer), not.Sent) || len(not.Sent) == 0 {
					t.Errorf("the call returned %v", err)
				}
			}
			check(err)
			s, err := conn.NewStream(t.Context(), split, service+"Split")
			if err != nil {
				t.Fatal(err)
			}
			if err = s.SendMsg(new(testv1.SplitRequest)); err == nil {
				_, err = receive(s)
			}
			check(err)
		})
	}
}

// TestMisuse shows that what a caller does wrong is said.
func TestMisuse(t *testing.T) {
	onEach(t, func(t *testing.T, _ *proctest.Process, conn *grpcconn.Conn) {
		s := stream(t, t.Context(), conn, split, "a")
		if err := s.SendMsg(&testv1.SplitRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("second message of one: %v", err)
		}
		s = stream(t, t.Context(), conn, echo)
		if err := s.SendMsg(&testv1.EchoRequest{}); status.Code(err) != codes.Internal && err != io.EOF {
			t.Errorf("message after CloseSend: %v", err)
		}
		s, err := conn.NewStream(t.Context(), split, service+"Split")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CloseSend(); status.Code(err) != codes.Internal {
			t.Errorf("no message where one is needed: %v", err)
		}
		want(t, s, status.Error(codes.Internal, ""))
	})
}
