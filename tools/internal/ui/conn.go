package ui

import (
	"context"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// conn is a connection as the page wants it. It ends streams after max messages: the page holds all of a call's in
// memory, and some streams never end. And its RecvMsg returns why a stream cannot be opened or sent on, because grpcurl
// does not report such an error of NewStream or SendMsg.
type conn struct {
	grpc.ClientConnInterface
	max int
}

func (c *conn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		s = &failed{ctx, err}
	}
	return &stream{s, desc, c.max, c.max}, nil
}

type stream struct {
	grpc.ClientStream
	desc      *grpc.StreamDesc
	left, max int
}

// SendMsg returns io.EOF where grpcurl goes on with RecvMsg then, and else nil.
func (s *stream) SendMsg(m any) error {
	if err := s.ClientStream.SendMsg(m); err != nil && s.desc.ClientStreams {
		return io.EOF
	}
	return nil
}

func (s *stream) CloseSend() error {
	_ = s.ClientStream.CloseSend()
	return nil
}

// RecvMsg is called by one goroutine at a time, as with any grpc.ClientStream. The caller cancels the stream on an
// error.
func (s *stream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	if received, ok := s.Context().Value(receivedKey{}).(*atomic.Int64); ok {
		received.Add(1)
	}
	if s.left--; s.left < 0 {
		return status.Errorf(codes.ResourceExhausted, "the page takes %d messages of a call, and there are more", s.max)
	}
	return nil
}

// failed is a stream that could not be opened.
type failed struct {
	ctx context.Context
	err error
}

func (s *failed) SendMsg(any) error            { return s.err }
func (s *failed) RecvMsg(any) error            { return s.err }
func (s *failed) CloseSend() error             { return s.err }
func (s *failed) Context() context.Context     { return s.ctx }
func (s *failed) Header() (metadata.MD, error) { return nil, s.err }
func (*failed) Trailer() metadata.MD           { return nil }
