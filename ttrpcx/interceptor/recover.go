package interceptor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The caller learns that it is not to blame and no more: a panic's value and stack are for those who run the server.
var errPanicked = status.Error(codes.Internal, "internal error, see the server's log")

// Recover turns a panic of the handler into codes.Internal with a fixed message, and logs the value and the stack to
// logger (nil: slog.Default()). Without it the process ends.
//
// Two things are out of reach. A panic in a goroutine that the handler started still ends the process. And nothing can
// answer a call whose handler ends the goroutine by runtime.Goexit, as FailNow of package testing does: ttrpc sends its
// answer from that goroutine, and one more goroutine for each call would be a high price. Recover logs it; the caller
// waits for its deadline.
func Recover(logger *slog.Logger) ttrpc.StreamServerInterceptor {
	logger = orDefault(logger)
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (resp any, err error) {
		returned := false
		defer func() {
			if returned {
				return
			}
			if v := recover(); v != nil {
				resp, err = nil, errPanicked
				logger.LogAttrs(ctx, slog.LevelError, "handler panicked", slog.String("method", info.FullMethod),
					slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
				return
			}
			logger.LogAttrs(ctx, slog.LevelError, "handler ended its goroutine, its call stays unanswered",
				slog.String("method", info.FullMethod), slog.String("stack", string(debug.Stack())))
		}()
		resp, err = handler(ctx, stream)
		returned = true
		return resp, err
	}
}

func orDefault(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.Default()
	}
	return logger
}
