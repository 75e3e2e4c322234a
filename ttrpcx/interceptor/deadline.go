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

// Deadline gives a call that carries no deadline one that is d after its start; 0 or less gives none. A ttrpc client
// sends the deadline of a unary call and never that of a stream, so d bounds the whole life of every stream.
//
// The deadline ends the handler's context and, on a stream, RecvMsg, which costs a goroutine for each message received.
// A handler that heeds neither goes on.
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

// deadlineStream ends RecvMsg with ctx: ttrpc's own waits for the context that it made before the deadline was known.
type deadlineStream struct {
	ttrpc.StreamServer
	ctx context.Context
}

// RecvMsg leaves a goroutine behind when ctx ends. ttrpc ends that one with the call, when the handler returns. It
// never touches m, which the caller may use again by then: it receives into an empty message, which keeps the encoded
// fields that it does not know.
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

// unmarshal answers what ttrpc cannot read with the code that ttrpc answers it with.
func unmarshal(encoded []byte, m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "receive into a %T, which is no message", m)
	}
	if err := proto.Unmarshal(encoded, msg); err != nil {
		return status.Errorf(codes.Internal, "unmarshal message: %v", err)
	}
	return nil
}
