package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

func TestStatusError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{ttrpc.ErrClosed, codes.Unavailable},
		{ttrpc.ErrStreamFull, codes.ResourceExhausted},
		{ttrpc.ErrStreamClosed, codes.FailedPrecondition},
		{ttrpc.ErrProtocol, codes.Internal},
		{io.ErrUnexpectedEOF, codes.Unavailable},
		{&net.OpError{Op: "write", Err: syscall.ECONNRESET}, codes.Unavailable},
		{errors.New("plain"), codes.Unknown},
		{ttrpc.OversizedMessageError(5 << 20), codes.ResourceExhausted},
		{status.Error(codes.NotFound, "none"), codes.NotFound},
	} {
		for _, err := range []error{test.err, fmt.Errorf("wrap: %w", test.err)} {
			got := interceptor.StatusError(err)
			if code := status.Code(got); code != test.want {
				t.Errorf("%v: code %v, want %v", err, code, test.want)
			}
			if !errors.Is(got, test.err) {
				t.Errorf("%v does not wrap %v", got, test.err)
			}
			if again := interceptor.StatusError(got); again != got {
				t.Errorf("%v: a second time it became %v", got, again)
			}
		}
	}
	for _, err := range []error{nil, io.EOF} {
		if got := interceptor.StatusError(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	got := interceptor.StatusError(fmt.Errorf("call: %w", ttrpc.ErrClosed)).Error()
	if want := status.Error(codes.Unavailable, "call: ttrpc: closed").Error(); got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
}

// The errors of real calls and streams.
func TestClientStatus(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "none").WithDetails(wrapperspb.String("detail"))
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{}) // handlers wait for it, because at the context's end they might answer first
	defer close(end)
	client, stop := serve(t, interceptor.Chain(), service{
		unary: func(_ context.Context, req *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
			if req.GetFoo() == "wait" {
				<-end
			}
			return nil, detailed.Err()
		},
		split: func(context.Context, *testv1.SplitRequest, testv1.Test_SplitServer) error {
			<-end
			return nil
		},
	}, ttrpc.WithUnaryClientInterceptor(interceptor.ClientStatus()))
	example := testv1.NewTestClient(client)

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		foo  string
		want codes.Code
		is   error
	}{
		{"canceled", canceled, "wait", codes.Canceled, context.Canceled},
		{"late", late, "wait", codes.DeadlineExceeded, context.DeadlineExceeded},
		{"oversized", t.Context(), text(limit), codes.ResourceExhausted, nil},
		{"answered", t.Context(), "", codes.NotFound, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := example.Unary(test.ctx, &testv1.UnaryRequest{Foo: test.foo})
			if code := status.Code(err); code != test.want {
				t.Errorf("%v, want %v", err, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v is not %v", err, test.is)
			}
			if details := status.Convert(err).Details(); test.name == "answered" && len(details) != 1 {
				t.Errorf("details are %v", details)
			}
		})
	}
	stream, err := example.Split(canceled, &testv1.SplitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	if err = interceptor.StatusError(err); codeOf(err) != "Canceled" || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled stream: %v", err)
	}
	stop()
	if _, err := example.Unary(t.Context(), &testv1.UnaryRequest{}); codeOf(err) != "Unavailable" ||
		!errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	_, err = example.Split(t.Context(), &testv1.SplitRequest{})
	if err = interceptor.StatusError(err); codeOf(err) != "Unavailable" || !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A client loses a stream from which it does not receive for a second.
func TestStatusErrorStreamFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := serve(t, interceptor.Chain(), service{
			split: func(_ context.Context, _ *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
				for range 100 {
					if err := stream.Send(&testv1.SplitResponse{Word: "x"}); err != nil {
						return err
					}
				}
				return nil
			},
		})
		defer stop()
		stream, err := testv1.NewTestClient(client).Split(t.Context(), &testv1.SplitRequest{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // on the clock of synctest
		synctest.Wait()
		err = interceptor.StatusError(drain(stream.Recv))
		if codeOf(err) != "ResourceExhausted" || !errors.Is(err, ttrpc.ErrStreamFull) {
			t.Errorf("got %v", err)
		}
	})
}
