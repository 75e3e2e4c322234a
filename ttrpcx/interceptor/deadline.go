package interceptor

import (
	"context"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Deadline gives each call without a deadline one that is d after its start. If d is 0 or less, it does nothing.
// ttrpc's own client sends the deadline of a unary call, but not of a stream. Then d bounds the duration of the whole
// stream.
//
// The deadline ends the handler's context and, on a stream, RecvMsg. That costs a goroutine for each message that is
// received. A handler that ignores both goes on.
func Deadline(d time.Duration) ttrpc.StreamServerInterceptor {
	if d <= 0 {
		return pass
	}
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		if _, ok := ctx.Deadline(); ok {
			return handler(ctx, stream)
		}
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		if info.StreamingClient {
			stream = &deadlineStream{stream, ctx}
		}
		return handler(ctx, stream)
	}
}

// deadlineStream is a stream whose RecvMsg returns when ctx ends. ttrpc's RecvMsg only knows the context without the
// deadline.
type deadlineStream struct {
	ttrpc.StreamServer
	ctx context.Context
}

// RecvMsg leaves a goroutine behind if ctx ends. It ends when the handler returns, because ttrpc ends the stream then.
// The goroutine does not write to m, because the caller may use m again by then. It receives into an empty message,
// which keeps the encoded message as unknown fields.
func (s *deadlineStream) RecvMsg(m any) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	encoded := new(emptypb.Empty)
	done := make(chan error, 1)
	go func() { done <- s.StreamServer.RecvMsg(encoded) }()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		return unmarshal(encoded.ProtoReflect().GetUnknown(), m)
	case <-s.ctx.Done():
		return s.ctx.Err()
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
