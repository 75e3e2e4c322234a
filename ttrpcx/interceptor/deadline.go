package interceptor

import (
	"context"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Deadline gives each call a deadline that is d after its start, unless the caller's is earlier. If d is 0 or less, it
// does nothing. ttrpc's own client sends the deadline of a unary call, but not of a stream. d bounds the duration of a
// whole stream.
//
// The deadline ends the handler's context and, on a stream, RecvMsg. A handler that ignores both goes on.
func Deadline(d time.Duration) ttrpc.StreamServerInterceptor {
	if d <= 0 {
		return pass
	}
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		if r, ok := stream.(*receiver); ok {
			stream = &receiver{r.StreamServer, ctx, r.inbox}
		} else if info.StreamingClient {
			r := receive(ctx, stream, nil)
			defer r.stop()
			stream = r
		}
		return handler(ctx, stream)
	}
}

// unmarshal returns codes.Internal for bytes that it cannot unmarshal, as ttrpc does.
func unmarshal(encoded []byte, m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "receive into a %T: want a protobuf message", m)
	}
	if err := proto.Unmarshal(encoded, msg); err != nil {
		return status.Errorf(codes.Internal, "unmarshal message: %v", err)
	}
	return nil
}
