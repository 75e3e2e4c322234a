package main

import (
	"context"
	"log/slog"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// showMetadata logs the metadata of each call. It is here to show where interceptors of your own go.
func showMetadata(log *slog.Logger) ttrpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response,
		info *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker,
	) error {
		md := ttrpc.MD{}
		for _, kv := range req.GetMetadata() {
			md.Append(kv.GetKey(), kv.GetValue())
		}
		log.InfoContext(ctx, "client interceptor", "method", info.FullMethod, interceptor.Metadata(md))
		return invoke(ctx, req, resp)
	}
}
