package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

const limit = 4 << 20

// text returns a text. A message with this text in its only field has size bytes.
func text(size int) string {
	n := size - 5 // the tag and, near the limit, four bytes of length
	if proto.Size(&testv1.EchoResponse{Message: strings.Repeat("x", n)}) != size {
		panic("text works for sizes near the limit only")
	}
	return strings.Repeat("x", n)
}

// The largest answers that ttrpc can send, and the smallest that it cannot. The latter would end the connection.
func TestSendableResponse(t *testing.T) {
	const unaryLimit = limit - 5 // the response is a field of a ttrpc.Response
	var answer string
	client, _ := serve(t, interceptor.Sendable(), service{
		unary: func(context.Context, *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
			return &testv1.UnaryResponse{Foo: answer}, nil
		},
		split: func(_ context.Context, _ *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
			return stream.Send(&testv1.SplitResponse{Word: answer})
		},
		join: func(context.Context, testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
			return &testv1.JoinResponse{Text: answer}, nil
		},
		echo: func(_ context.Context, stream testv1.Test_EchoServer) error {
			return stream.Send(&testv1.EchoResponse{Message: answer})
		},
	})
	for _, kind := range kinds {
		most := unaryLimit
		if kind.name == "Split" || kind.name == "Echo" {
			most = limit
		}
		answer = text(most)
		if err := kind.call(t.Context(), client); err != nil {
			t.Errorf("%s: the largest response: %v", kind.name, err)
		}
		answer = text(most + 1)
		err := kind.call(t.Context(), client)
		want := fmt.Sprintf("response of %d bytes is over the limit of %d", limit+1, limit)
		if st := status.Convert(err); st.Code() != codes.ResourceExhausted || st.Message() != want {
			t.Errorf("%s: one byte more: %v", kind.name, err)
		}
		alive(t, client)
	}
}

// A message that is too large is an error to the handler, not the end of its stream.
func TestSendableStreamGoesOn(t *testing.T) {
	client, _ := serve(t, interceptor.Sendable(), service{
		split: func(_ context.Context, _ *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
			if err := stream.Send(&testv1.SplitResponse{Word: text(limit + 1)}); codeOf(err) != "ResourceExhausted" {
				return err
			}
			return stream.Send(&testv1.SplitResponse{Word: "small"})
		},
	})
	stream, err := testv1.NewTestClient(client).Split(t.Context(), &testv1.SplitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || got.GetWord() != "small" {
		t.Errorf("got %v, %v", got, err)
	}
}

// A method without a stream of responses can still try to send a message.
func TestSendableStrayMessage(t *testing.T) {
	client, _ := serve(t, interceptor.Sendable(), service{
		join: func(_ context.Context, stream testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
			return nil, stream.SendMsg(&testv1.EchoResponse{Message: text(limit + 1)})
		},
	})
	if err := kinds[2].call(t.Context(), client); codeOf(err) != "ResourceExhausted" {
		t.Error(err)
	}
	alive(t, client)
}

func TestSendableError(t *testing.T) {
	var result error
	client, _ := serve(t, interceptor.Sendable(), all(func(context.Context) error { return result }))

	withDetail := func(message string, size int) error {
		st, err := status.New(codes.NotFound, message).WithDetails(wrapperspb.Bytes(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	short := strings.Repeat("x", 1<<10)
	// In a Status, a code below 128 takes two bytes, and the tag and the length of the message take five.
	const mostMessage = limit - 5 - 2 - 5
	for name, test := range map[string]struct {
		result  error
		code    codes.Code
		message string
		details int
	}{
		"usual":        {status.Error(codes.NotFound, "none"), codes.NotFound, "none", 0},
		"plain":        {errors.New("plain"), codes.Unknown, "plain", 0},
		"with details": {withDetail("none", 100), codes.NotFound, "none", 1},
		"no text":      {errors.New(""), codes.Unknown, "", 0},
		"largest": {
			status.Error(codes.NotFound, text(mostMessage+5)),
			codes.NotFound, text(mostMessage + 5), 0,
		},
		"one byte more": {
			status.Error(codes.NotFound, text(mostMessage+6)),
			codes.NotFound, short + "... (4194293 bytes)", 0,
		},
		"long and plain": {
			errors.New(strings.Repeat("x", 5<<20)),
			codes.Unknown, short + "... (5242880 bytes)", 0,
		},
		"large details":       {withDetail("none", limit), codes.NotFound, "none", 0},
		"invalid UTF-8":       {errors.New("open \xff"), codes.Unknown, "open \uFFFD", 0},
		"invalid and details": {withDetail("open \xff", 100), codes.NotFound, "open \uFFFD", 1},
		"invalid and long": {
			errors.New(strings.Repeat("\xff ", 2<<20)),
			codes.Unknown, strings.Repeat("\uFFFD ", 256) + "... (8388608 bytes)", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			result = test.result
			for _, kind := range kinds[:2] { // all kinds of stream handle errors in the same way
				st := status.Convert(kind.call(t.Context(), client))
				if st.Code() != test.code || st.Message() != test.message || len(st.Details()) != test.details {
					t.Errorf("%s: the client got %v %.99q (%d bytes) with %d details", kind.name, st.Code(),
						st.Message(), len(st.Message()), len(st.Details()))
				}
				alive(t, client)
			}
		})
	}
}

// The outer interceptors can still find the handler's error, also if its status had to be replaced.
func TestSendableErrorStaysItself(t *testing.T) {
	cause := errors.New(strings.Repeat("x", limit))
	_, err := interceptor.Sendable()(t.Context(), nil, &ttrpc.StreamServerInfo{},
		func(context.Context, ttrpc.StreamServer) (any, error) { return "dropped", cause })
	if !errors.Is(err, cause) {
		t.Error("the cause is gone")
	}
}

func TestSendableContextError(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		result error
		want   codes.Code
	}{
		"wrapped":        {ended, fmt.Errorf("look up: %w", context.Canceled), codes.Canceled},
		"bare":           {ended, context.Canceled, codes.Unknown}, // ttrpc itself gives it a code
		"not the call's": {t.Context(), fmt.Errorf("look up: %w", context.Canceled), codes.Unknown},
		"other error":    {ended, fmt.Errorf("look up: %w", context.DeadlineExceeded), codes.Unknown},
		"has a status":   {ended, status.Error(codes.NotFound, context.Canceled.Error()), codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := interceptor.Sendable()(test.ctx, nil, &ttrpc.StreamServerInfo{},
				func(context.Context, ttrpc.StreamServer) (any, error) { return nil, test.result })
			if got := status.Code(err); got != test.want {
				t.Errorf("code %v, want %v", got, test.want)
			}
			if !errors.Is(err, test.result) {
				t.Errorf("%v does not wrap %v", err, test.result)
			}
		})
	}
}

func TestSendableNoResponse(t *testing.T) {
	client, _ := serve(t, interceptor.Sendable(), service{
		unary: func(context.Context, *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
			return nil, nil
		},
		join: func(context.Context, testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
			return nil, nil
		},
		echo: func(context.Context, testv1.Test_EchoServer) error { return nil }, // it has none
	})
	want := map[string]string{"Unary": "Internal", "Split": "OK", "Join": "Internal", "Echo": "OK"}
	for _, kind := range kinds {
		if err := kind.call(t.Context(), client); codeOf(err) != want[kind.name] {
			t.Errorf("%s: %v", kind.name, err)
		}
	}
	for _, resp := range []any{nil, (*testv1.UnaryResponse)(nil)} {
		_, err := interceptor.Sendable()(t.Context(), nil, &ttrpc.StreamServerInfo{},
			func(context.Context, ttrpc.StreamServer) (any, error) { return resp, nil })
		if codeOf(err) != "Internal" {
			t.Errorf("%T: %v", resp, err)
		}
	}
}
