package grpcconn

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type stream struct {
	call  *call
	desc  *grpc.StreamDesc
	queue *queue

	mu sync.Mutex
	ts ttrpc.ClientStream // nil until it is open
}

func newStream(c *call, desc *grpc.StreamDesc) (*stream, error) {
	s := &stream{call: c, desc: desc, queue: newQueue()}
	c.conn.queue.Store(s.queue)
	context.AfterFunc(c.ctx, func() { _ = s.end(c.ctx.Err()) })
	if desc.ClientStreams {
		if err := s.open(nil); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// open opens the stream, with its request if that is the only one. A nil *raw must not become an interface.
func (s *stream) open(req any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ts != nil {
		return status.Errorf(codes.Internal, "method %s takes one message: it was sent", s.call.method)
	}
	desc := &ttrpc.StreamDesc{StreamingClient: s.desc.ClientStreams, StreamingServer: s.desc.ServerStreams}
	s.call.conn.opens = s.call.ctx
	ts, err := s.call.client.NewStream(s.call.ctx, desc, s.call.service, s.call.method, req)
	if err != nil {
		return s.end(err)
	}
	s.ts = ts
	go s.readAhead(ts)
	return nil
}

// readAhead takes from ttrpc what arrives: ttrpc ends a stream that has 64 messages wait for more than a second.
func (s *stream) readAhead(ts ttrpc.ClientStream) {
	for {
		m := new(raw)
		if err := ts.RecvMsg(m); err != nil {
			_ = s.end(err)
			return
		}
		s.queue.push(m)
	}
}

// end ends the stream, unless it has ended, and returns the error with its status.
func (s *stream) end(err error) error {
	if err != io.EOF {
		err = s.call.status(err)
	}
	s.queue.end(err, errors.Is(s.call.ctx.Err(), context.Canceled))
	s.call.cancel()
	return err
}

// SendMsg returns io.EOF when the stream has ended; RecvMsg then tells why.
func (s *stream) SendMsg(m any) error {
	req, err := encode(m)
	if err != nil {
		return s.end(err)
	}
	if !s.desc.ClientStreams {
		return s.open(req)
	}
	if s.queue.ended() {
		return io.EOF
	}
	switch err := s.ts.SendMsg(req); {
	case err == nil:
		return nil
	case errors.Is(err, ttrpc.ErrStreamClosed):
		return s.end(status.Error(codes.Internal, "SendMsg after CloseSend"))
	case status.Code(err) == codes.ResourceExhausted: // too large, so that it was not sent
		return s.end(err)
	default:
		return io.EOF // what the server has sent before the connection broke is still to be read
	}
}

func (s *stream) CloseSend() error {
	if s.desc.ClientStreams {
		if !s.queue.ended() {
			_ = s.ts.CloseSend() // as with gRPC, RecvMsg tells what is wrong with the stream
		}
		return nil
	}
	s.mu.Lock()
	opened := s.ts != nil
	s.mu.Unlock()
	if !opened {
		return s.end(status.Errorf(codes.Internal, "method %s takes one message: none was sent", s.call.method))
	}
	return nil
}

func (s *stream) RecvMsg(m any) error {
	if err := s.call.ctx.Err(); err != nil {
		_ = s.end(err) // from now on, a caller that cancels gets no more messages
	}
	r, err := s.queue.pop()
	if err != nil {
		return err
	}
	return decode(r, m)
}

func (s *stream) Context() context.Context   { return s.call.ctx }
func (*stream) Header() (metadata.MD, error) { return nil, nil }
func (*stream) Trailer() metadata.MD         { return nil }
