package main

import (
	"context"
	"log/slog"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// showMetadata logs the metadata of each call. It is here to show where interceptors of your own go.
func showMetadata(log *slog.Logger) ttrpc.StreamServerInterceptor {
	return func(
		ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo, handler ttrpc.StreamHandler,
	) (any, error) {
		md, _ := ttrpc.GetMetadata(ctx)
		log.InfoContext(ctx, "server interceptor", "method", info.FullMethod, interceptor.Metadata(md))
		return handler(ctx, stream)
	}
}
