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

// errPanicked tells the caller that the server has a fault, and no more. The value and the stack of a panic may contain
// secrets, so only the server's log gets them.
var errPanicked = status.Error(codes.Internal, "internal error, see the server's log")

// Recover answers a call whose handler panics with codes.Internal and a fixed message, and logs the panic's value and
// stack to logger (nil: slog.Default()). Without it, the process ends.
//
// It has two limits. A panic in a goroutine that the handler started still ends the process. And a call gets no answer
// if its handler ends the goroutine with runtime.Goexit, as FailNow of package testing does: ttrpc answers from that
// goroutine, and one more goroutine for each call would cost too much. Recover logs that, and the caller waits until
// its deadline.
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
			logger.LogAttrs(ctx, slog.LevelError, "handler ended its goroutine, so its call gets no answer",
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
