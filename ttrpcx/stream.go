package ttrpcx

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// clientStream is a stream inside the client's interceptors, which run in a goroutine of its own from before it opens until
// it has ended.
type clientStream struct {
	client *Client
	desc   *ttrpc.StreamDesc
	opened chan struct{} // closed when stream is set
	ended  chan error    // gets the error with which stream ended
	result error         // of the interceptors, once returned is closed

	returned chan struct{}

	stream ttrpc.ClientStream
	ctx    *streamContext // of stream

	mu       sync.Mutex // held while receiving
	received bool       // up to the end of stream
	dropped  bool       // nobody else receives from stream
}

// openStream returns a stream when it is open or its interceptors have refused it.
func openStream(
	ctx context.Context, client *Client, desc *ttrpc.StreamDesc, req *ttrpc.Request,
) (ttrpc.ClientStream, error) {
	s := &clientStream{
		client:   client,
		desc:     desc,
		opened:   make(chan struct{}),
		ended:    make(chan error, 1),
		returned: make(chan struct{}),
	}
	go s.run(ctx, req)
	select {
	case <-s.opened:
		return s, nil
	case <-s.returned:
		if s.result == nil {
			s.result = status.Error(codes.Internal, "an interceptor opened no stream and returned no error")
		}
		return nil, s.result
	}
}

// run runs the interceptors, and reads on if the stream has not ended by then.
func (s *clientStream) run(ctx context.Context, req *ttrpc.Request) {
	resp := new(ttrpc.Response)
	info := &ttrpc.UnaryClientInfo{FullMethod: "/" + req.GetService() + "/" + req.GetMethod()}
	s.result = s.client.intercept(ctx, req, resp, info, s.invoke)
	if s.result == nil {
		s.result = status.ErrorProto(resp.GetStatus()) // nil for OK, as ttrpc does it for unary calls
	}
	close(s.returned)
	s.drop()
}

// invoke is the invoker of the interceptors.
func (s *clientStream) invoke(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response) error {
	if s.stream != nil {
		return status.Error(codes.Internal, "a stream can be opened once only")
	}
	var message any
	if !s.desc.StreamingClient {
		empty := new(emptypb.Empty) // which encodes to what it does not know
		empty.ProtoReflect().SetUnknown(req.GetPayload())
		message = empty
	}
	s.ctx = &streamContext{Context: ctx}
	stream, err := s.client.TTRPC.NewStream(s.ctx, s.desc, req.GetService(),
		wire.StreamMethod(req.GetMethod(), req.GetMetadata(), time.Duration(req.GetTimeoutNano())), message)
	if err != nil {
		return err
	}
	s.stream = stream
	close(s.opened)
	select {
	case err = <-s.ended:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.client.closed:
		err = ttrpc.ErrClosed
	}
	if st, ok := status.FromError(err); ok { // the server's, or nil
		resp.Status = st.Proto()
		return nil
	}
	return err
}

// SendMsg sends a message.
func (s *clientStream) SendMsg(m any) error { return interceptor.StatusError(s.stream.SendMsg(m)) }

// CloseSend ends the client's side.
func (s *clientStream) CloseSend() error { return interceptor.StatusError(s.stream.CloseSend()) }

// RecvMsg receives a message. When the stream has ended it returns what the interceptors make of its end: io.EOF if it
// ended well.
func (s *clientStream) RecvMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received || s.dropped {
		return s.end(io.EOF)
	}
	err := s.stream.RecvMsg(m)
	if err == nil && s.desc.StreamingServer {
		return nil
	}
	s.received = true
	well := err
	if s.desc.StreamingServer {
		well = io.EOF
	}
	if err == io.EOF {
		err = nil
	}
	s.ended <- err
	return s.end(well)
}

// end returns how the stream ended, which is well if the interceptors say so.
func (s *clientStream) end(well error) error {
	<-s.returned
	if s.result != nil {
		return s.result
	}
	return well
}

// drop reads what the server still sends after the caller has gone: ttrpc holds up the whole connection for a second when a
// stream's messages pile up, and keeps the stream until its end.
func (s *clientStream) drop() {
	s.mu.Lock()
	drop := s.stream != nil && !s.received
	s.dropped = drop
	s.mu.Unlock()
	if !drop {
		return
	}
	s.ctx.outlived.Store(true)
	for s.stream.RecvMsg(new(emptypb.Empty)) == nil && s.desc.StreamingServer {
	}
}

// streamContext is the context of a stream, which can be made to last until the stream's end.
type streamContext struct {
	context.Context
	outlived atomic.Bool
}

// Done returns nil once the context is to be outlived.
func (c *streamContext) Done() <-chan struct{} {
	if c.outlived.Load() {
		return nil
	}
	return c.Context.Done()
}
