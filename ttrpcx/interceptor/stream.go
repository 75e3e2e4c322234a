package interceptor

import (
	"context"
	"maps"

	"github.com/containerd/ttrpc"
)

// Streams returns a copy of the service in which the interceptor runs around each streaming method. Register it with
// ttrpc.Server.RegisterService. It is needed because ttrpc has no option for interceptors of streams. service is the
// full name, such as "package.Service".
func Streams(service string, desc *ttrpc.ServiceDesc, interceptor ttrpc.StreamServerInterceptor) *ttrpc.ServiceDesc {
	wrapped := &ttrpc.ServiceDesc{Methods: desc.Methods, Streams: maps.Clone(desc.Streams)}
	for method, stream := range wrapped.Streams {
		handler := stream.Handler
		info := &ttrpc.StreamServerInfo{
			FullMethod:      "/" + service + "/" + method,
			StreamingClient: stream.StreamingClient,
			StreamingServer: stream.StreamingServer,
		}
		stream.Handler = func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
			resp, err := interceptor(ctx, stream, info, handler)
			if info.StreamingServer {
				resp = nil // such a method has no response, and ttrpc must not send the interceptor's
			}
			return resp, err
		}
		wrapped.Streams[method] = stream
	}
	return wrapped
}
