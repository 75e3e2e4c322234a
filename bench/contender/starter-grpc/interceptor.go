package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// interceptor logs each call, turns panics into Internal and gives a deadline to calls that have none.
type interceptor struct {
	log     *slog.Logger
	timeout time.Duration
}

func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (
	any, error,
) {
	var resp any
	err := i.call(ctx, info.FullMethod, func(ctx context.Context, in, out *int) (err error) {
		resp, err = handler(ctx, req)
		*in, *out = size(req), size(resp)
		return err
	})
	return resp, err
}

func (i *interceptor) stream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return i.call(stream.Context(), info.FullMethod, func(ctx context.Context, in, out *int) error {
		return handler(srv, &countedStream{stream, ctx, in, out})
	})
}

func (i *interceptor) call(
	ctx context.Context, method string, handle func(ctx context.Context, in, out *int) error,
) error {
	start := time.Now()
	md, _ := metadata.FromIncomingContext(ctx)
	from, _ := peer.FromContext(ctx)
	if _, ok := ctx.Deadline(); !ok && i.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, i.timeout)
		defer cancel()
	}
	var in, out int
	err := i.recovered(ctx, method, func() error { return handle(ctx, &in, &out) })
	level := slog.LevelInfo
	switch status.Code(err) {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.String("method", method), slog.Any("metadata", md), slog.Any("peer", from.AuthInfo),
		slog.Duration("duration", time.Since(start)), slog.String("code", status.Code(err).String()),
		slog.Int("request_bytes", in), slog.Int("response_bytes", out),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	i.log.LogAttrs(ctx, level, "call served", attrs...)
	return err
}

func (i *interceptor) recovered(ctx context.Context, method string, handle func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.ErrorContext(ctx, "panic", "method", method, "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	return handle()
}

// countedStream counts bytes, and has the context with the deadline.
type countedStream struct {
	grpc.ServerStream
	ctx     context.Context
	in, out *int
}

func (s *countedStream) Context() context.Context { return s.ctx }

func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	*s.in += size(m)
	return err
}

func (s *countedStream) SendMsg(m any) error {
	*s.out += size(m)
	return s.ServerStream.SendMsg(m)
}

func size(m any) int {
	if m, ok := m.(proto.Message); ok {
		return proto.Size(m)
	}
	return 0
}
