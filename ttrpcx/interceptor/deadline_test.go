package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// These tests use the clock of package testing/synctest, so none of them really waits.

func TestDeadline(t *testing.T) {
	for name, test := range map[string]struct {
		d    time.Duration
		sent time.Duration            // the client's timeout, 0 for none
		want map[string]time.Duration // the time until the deadline at the handler's start, 0 for no deadline
	}{
		"off": {0, 0, map[string]time.Duration{}},
		"default": {time.Hour, 0, map[string]time.Duration{
			"Unary": time.Hour, "Split": time.Hour, "Join": time.Hour, "Echo": time.Hour,
		}},
		// ttrpc's client sends a deadline with a unary call only.
		"client's is later": {time.Hour, 2 * time.Hour, map[string]time.Duration{
			"Unary": time.Hour, "Split": time.Hour, "Join": time.Hour, "Echo": time.Hour,
		}},
		"client's is sooner": {time.Hour, time.Minute, map[string]time.Duration{
			"Unary": time.Minute, "Split": time.Hour, "Join": time.Hour, "Echo": time.Hour,
		}},
		"off, client has one": {0, time.Minute, map[string]time.Duration{"Unary": time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left time.Duration
				client, stop := serve(t, interceptor.Deadline(test.d), all(func(ctx context.Context) error {
					left = 0
					if deadline, ok := ctx.Deadline(); ok {
						left = time.Until(deadline)
					}
					return nil
				}))
				defer stop()
				ctx := t.Context()
				if test.sent != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.sent)
					defer cancel()
				}
				for _, kind := range kinds {
					if err := kind.call(ctx, client); err != nil {
						t.Errorf("%s: %v", kind.name, err)
					}
					if left != test.want[kind.name] {
						t.Errorf("%s: %v left, want %v", kind.name, left, test.want[kind.name])
					}
				}
			})
		})
	}
}

// The deadline ends the call, with the right code also if the handler wraps the context's error.
func TestDeadlineEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := interceptor.Chain(interceptor.Deadline(time.Hour), interceptor.Sendable())
		client, stop := serve(t, chain, all(func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("look something up: %w", ctx.Err())
		}))
		defer stop()
		for _, kind := range kinds {
			start := time.Now()
			if err := kind.call(t.Context(), client); codeOf(err) != "DeadlineExceeded" {
				t.Errorf("%s: %v", kind.name, err)
			}
			if took := time.Since(start); took != time.Hour {
				t.Errorf("%s: ended after %v", kind.name, took)
			}
		}
	})
}

// A handler that waits for a message waits no longer than until the deadline.
func TestDeadlineEndsRecv(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs [3]error
		client, stop := serve(t, interceptor.Deadline(time.Hour), service{
			echo: func(_ context.Context, stream testv1.Test_EchoServer) error {
				for i := range errs {
					_, errs[i] = stream.Recv()
				}
				return errs[2]
			},
		})
		defer stop()
		stream, err := testv1.NewTestClient(client).Echo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testv1.EchoRequest{Message: "one and no more"}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := stream.Recv(); codeOf(err) != "DeadlineExceeded" {
			t.Errorf("the client got %v", err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("ended after %v", took)
		}
		late := context.DeadlineExceeded
		if errs[0] != nil || !errors.Is(errs[1], late) || !errors.Is(errs[2], late) {
			t.Errorf("the handler got %v", errs)
		}
	})
}

// A message that arrives after the deadline must not be written to the handler's variable, which it may use again.
func TestDeadlineLeavesMessageAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := lateStream{release: make(chan struct{}), done: make(chan error)}
		var req testv1.EchoRequest
		_, err := interceptor.Deadline(time.Hour)(t.Context(), late, &ttrpc.StreamServerInfo{StreamingClient: true},
			func(_ context.Context, stream ttrpc.StreamServer) (any, error) { return nil, stream.RecvMsg(&req) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		late.release <- struct{}{}
		if err := <-late.done; err != nil || req.GetMessage() != "" {
			t.Errorf("received %q, %v", req.GetMessage(), err)
		}
		close(late.release)
	})
}

// lateStream receives a message for each value from release.
type lateStream struct {
	release chan struct{}
	done    chan error
}

func (s lateStream) SendMsg(any) error { return nil }

func (s lateStream) RecvMsg(m any) error {
	if _, ok := <-s.release; !ok {
		return io.EOF
	}
	encoded, err := proto.Marshal(&testv1.EchoRequest{Message: "late"})
	if err == nil {
		err = proto.Unmarshal(encoded, m.(proto.Message))
	}
	s.done <- err
	return err
}

// With a deadline, another goroutine receives the messages. They, their order and the stream's end must stay the same.
func TestDeadlineStreams(t *testing.T) {
	client, _ := serve(t, interceptor.Deadline(time.Hour), service{})
	stream, err := testv1.NewTestClient(client).Echo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"a", "", "é", "d"} {
		if err := stream.Send(&testv1.EchoRequest{Message: message}); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || got.GetMessage() != message {
			t.Fatalf("sent %q, got %v, %v", message, got, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestDeadlineMalformedMessage(t *testing.T) {
	received := errors.New("not called")
	var into any
	client, _ := serve(t, interceptor.Deadline(time.Hour), service{
		echo: func(_ context.Context, stream testv1.Test_EchoServer) error {
			received = stream.RecvMsg(into)
			return received
		},
	})
	for name, test := range map[string]struct {
		sent string
		into any
	}{
		"invalid UTF-8": {"\xff", new(testv1.EchoRequest)},
		"not a message": {"a", new(string)},
	} {
		t.Run(name, func(t *testing.T) {
			into = test.into
			desc := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
			stream, err := client.NewStream(t.Context(), desc, "test.v1.Test", "Echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			// The bytes of BytesValue have the field number of EchoRequest's string.
			if err := stream.SendMsg(wrapperspb.Bytes([]byte(test.sent))); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(new(testv1.EchoResponse)); codeOf(err) != "Internal" {
				t.Errorf("the client got %v", err)
			}
			if codeOf(received) != "Internal" {
				t.Errorf("the handler got %v", received)
			}
			alive(t, client)
		})
	}
}
