package interceptor

import (
	"context"
	"maps"

	"github.com/containerd/ttrpc"
)

// Streams returns a service in which the interceptor runs around each streaming method, for ttrpc.Server.RegisterService:
// ttrpc installs no interceptor for streams. The day it does, this becomes needless and the interceptor stays the same.
// service is the full name, such as "package.Service".
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
				resp = nil // what the interceptor returns besides is not a message of the stream
			}
			return resp, err
		}
		wrapped.Streams[method] = stream
	}
	return wrapped
}
