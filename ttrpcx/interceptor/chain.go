package interceptor

import (
	"context"
	"errors"
	"slices"

	"github.com/containerd/ttrpc"
)

// Chain returns an interceptor that runs the given ones. The first is the outermost: it gets the call first and the
// answer last. With none, the handler is called directly.
func Chain(interceptors ...ttrpc.StreamServerInterceptor) ttrpc.StreamServerInterceptor {
	if len(interceptors) == 0 {
		return pass
	}
	last := len(interceptors) - 1
	chain := interceptors[last]
	for i := last - 1; i >= 0; i-- {
		outer, inner := interceptors[i], chain
		chain = func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
			handler ttrpc.StreamHandler,
		) (any, error) {
			return outer(ctx, stream, info, func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
				return inner(ctx, stream, info, handler)
			})
		}
	}
	return chain
}

func pass(ctx context.Context, stream ttrpc.StreamServer, _ *ttrpc.StreamServerInfo, handler ttrpc.StreamHandler,
) (any, error) {
	return handler(ctx, stream)
}

// Unary returns an interceptor for unary calls, to install with ttrpc.WithUnaryServerInterceptor. It runs the given
// interceptor, to which a unary call looks like a stream of one request and one response: RecvMsg unmarshals the
// request, and the handler returns the response.
func Unary(interceptor ttrpc.StreamServerInterceptor) ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method,
	) (any, error) {
		call := &unaryCall{
			info:      ttrpc.StreamServerInfo{FullMethod: info.FullMethod},
			unmarshal: unmarshal,
			method:    method,
		}
		return interceptor(ctx, call, &call.info, call.handle)
	}
}

// unaryCall has the stream, the info and the handler of one unary call, so that a call costs one allocation.
type unaryCall struct {
	info      ttrpc.StreamServerInfo
	unmarshal ttrpc.Unmarshaler
	method    ttrpc.Method
}

func (c *unaryCall) RecvMsg(m any) error { return c.unmarshal(m) }

func (c *unaryCall) SendMsg(any) error { return errors.New("send on a unary call") }

func (c *unaryCall) handle(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
	if stream == c { // no interceptor wrapped it: stream.RecvMsg would cost an allocation
		return c.method(ctx, c.unmarshal)
	}
	return c.method(ctx, stream.RecvMsg)
}

// ChainClient returns an interceptor that runs the given ones. The first is the outermost.
func ChainClient(interceptors ...ttrpc.UnaryClientInterceptor) ttrpc.UnaryClientInterceptor {
	return func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, info *ttrpc.UnaryClientInfo,
		invoke ttrpc.Invoker,
	) error {
		for _, i := range slices.Backward(interceptors) {
			inner := invoke
			invoke = func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response) error {
				return i(ctx, req, resp, info, inner)
			}
		}
		return invoke(ctx, req, resp)
	}
}
