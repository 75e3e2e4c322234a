package interceptor_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// Without ttrpcx.NewServer, install the interceptors in two places: for unary calls in ttrpc.NewServer, and for streams
// where the service is registered.
func ExampleStreams() {
	intercept := interceptor.Chain(
		interceptor.Log(interceptor.LogOptions{Logger: slog.New(slog.DiscardHandler)}),
		interceptor.Recover(nil),
		interceptor.Sendable(),
	)
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(interceptor.Unary(intercept)))
	if err != nil {
		log.Fatal(err)
	}
	server.RegisterService("app.v1.App", interceptor.Streams("app.v1.App", &ttrpc.ServiceDesc{
		Streams: map[string]ttrpc.Stream{
			"Watch": {StreamingServer: true, Handler: func(context.Context, ttrpc.StreamServer) (any, error) {
				return nil, status.Error(codes.Unimplemented, "not yet")
			}},
		},
	}, intercept))
	fmt.Println("registered")
	// Output: registered
}

// An error of ttrpc gets a status, and errors.Is still finds the original error.
func ExampleStatusError() {
	err := interceptor.StatusError(fmt.Errorf("call: %w", ttrpc.ErrClosed))
	fmt.Println(status.Code(err))
	err = interceptor.StatusError(context.DeadlineExceeded)
	fmt.Println(status.Code(err), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// Unavailable
	// DeadlineExceeded true
}
