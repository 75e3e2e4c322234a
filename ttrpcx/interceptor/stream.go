package interceptor

import (
	"context"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The three functions of this file put an interceptor around the body of a streaming method. Each is named after the
// side that streams and takes the method's full name ("/package.Service/Method"), the arguments that the generated code
// passed to the method, and the body. They exist because ttrpc installs no interceptor for streams, and become needless
// the day it does: the interceptor is the same.
//
// The body gets a stream of the same generated interface S, rebuilt around the stream that the interceptor hands down.
// S must ask for no more methods than its constraint names; generated interfaces never do.

// ServerStream runs the body of a method that sends a stream of messages in answer to one.
func ServerStream[Req, Res any, S interface {
	ttrpc.StreamServer
	Send(*Res) error
}](
	ctx context.Context, interceptor ttrpc.StreamServerInterceptor, fullMethod string, req *Req, stream S,
	body func(context.Context, *Req, S) error,
) error {
	info := &ttrpc.StreamServerInfo{FullMethod: fullMethod, StreamingServer: true}
	_, err := interceptor(ctx, received{stream, req}, info,
		func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
			// The generated code took the request off the stream before the interceptor had a chance to see it.
			if err := stream.RecvMsg(req); err != nil {
				return nil, err
			}
			return nil, body(ctx, req, typed[Req, Res, S](stream))
		})
	return err
}

// ClientStream runs the body of a method that takes a stream of messages and answers with one.
func ClientStream[Req, Res any, S interface {
	ttrpc.StreamServer
	Recv() (*Req, error)
}](
	ctx context.Context, interceptor ttrpc.StreamServerInterceptor, fullMethod string, stream S,
	body func(context.Context, S) (*Res, error),
) (*Res, error) {
	info := &ttrpc.StreamServerInfo{FullMethod: fullMethod, StreamingClient: true}
	res, err := interceptor(ctx, stream, info,
		func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
			return body(ctx, typed[Req, Res, S](stream))
		})
	if err != nil {
		return nil, err
	}
	answer, ok := res.(*Res)
	if !ok {
		return nil, status.Errorf(codes.Internal, "interceptor of %s answered with a %T", fullMethod, res)
	}
	return answer, nil
}

// BidiStream runs the body of a method that takes and sends streams of messages.
func BidiStream[Req, Res any, S interface {
	ttrpc.StreamServer
	Send(*Res) error
	Recv() (*Req, error)
}](
	ctx context.Context, interceptor ttrpc.StreamServerInterceptor, fullMethod string, stream S,
	body func(context.Context, S) error,
) error {
	info := &ttrpc.StreamServerInfo{FullMethod: fullMethod, StreamingClient: true, StreamingServer: true}
	_, err := interceptor(ctx, stream, info,
		func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
			return nil, body(ctx, typed[Req, Res, S](stream))
		})
	return err
}

// typedStream has the methods of every generated server stream with these messages.
type typedStream[Req, Res any] struct{ ttrpc.StreamServer }

func (s typedStream[Req, Res]) Send(m *Res) error { return s.SendMsg(m) }

func (s typedStream[Req, Res]) Recv() (*Req, error) {
	m := new(Req)
	if err := s.RecvMsg(m); err != nil {
		return nil, err
	}
	return m, nil
}

func typed[Req, Res, S any](stream ttrpc.StreamServer) S {
	return any(typedStream[Req, Res]{stream}).(S)
}

// received is a stream whose first message is already in req: receiving into req leaves it as it is.
type received struct {
	ttrpc.StreamServer
	req any
}

func (s received) RecvMsg(m any) error {
	if m == s.req {
		return nil
	}
	return s.StreamServer.RecvMsg(m)
}
