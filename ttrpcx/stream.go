package ttrpcx

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
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

	opened   chan struct{} // closed when stream and ctx are set
	received chan struct{} // closed when last is set
	returned chan struct{} // closed when result is set

	stream ttrpc.ClientStream
	ctx    *streamContext // of stream
	last   error          // with which receiving from stream ended; nil for an end without an error
	waited atomic.Bool    // an invoker has seen the end of stream
	result error          // of the interceptors; nil only after such an end

	mu   sync.Mutex // held while stream is opened or received from
	over bool       // stream is neither opened nor received from any more, except to drain it
}

// openStream returns a stream when it is open or its interceptors have refused it.
func openStream(
	ctx context.Context, client *Client, desc *ttrpc.StreamDesc, req *ttrpc.Request,
) (ttrpc.ClientStream, error) {
	s := &clientStream{
		client:   client,
		desc:     desc,
		opened:   make(chan struct{}),
		received: make(chan struct{}),
		returned: make(chan struct{}),
	}
	go s.run(ctx, req)
	select {
	case <-s.opened:
		return s, nil
	case <-s.returned:
		return nil, s.result
	}
}

// run runs the interceptors.
func (s *clientStream) run(ctx context.Context, req *ttrpc.Request) {
	ctx, cancel := context.WithCancel(ctx)
	method := "/" + req.GetService() + "/" + req.GetMethod()
	s.result = status.Error(codes.Internal, "an interceptor ended its goroutine")
	defer func() {
		if v := recover(); v != nil { // nobody else can recover from it here
			s.client.logger.Error("interceptor panicked", "method", method, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			s.result = status.Errorf(codes.Internal, "an interceptor panicked: %v", v)
		}
		if s.result == nil && !s.waited.Load() {
			s.result = status.Error(codes.Internal, "an interceptor returned no error before the stream had ended")
		}
		cancel() // what still receives
		s.finish()
	}()
	resp := new(ttrpc.Response)
	err := s.client.intercept(ctx, req, resp, &ttrpc.UnaryClientInfo{FullMethod: method}, s.invoke)
	if err == nil {
		err = status.ErrorProto(resp.GetStatus()) // nil for OK, as ttrpc does it for unary calls
	}
	s.result = err
}

// invoke is the invoker of the interceptors. One that calls it again waits for the end of the same stream.
func (s *clientStream) invoke(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response) error {
	if err := s.open(ctx, req); err != nil {
		return err
	}
	var err error
	select {
	case <-s.received:
		err = s.last
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ctx.Context.Done():
		err = s.ctx.Err()
	case <-s.client.closed:
		err = ttrpc.ErrClosed
	}
	s.waited.Store(true)
	if st, ok := status.FromError(err); ok { // the server's, or nil
		resp.Status = st.Proto()
		return nil
	}
	return err
}

// open opens the stream unless it is open.
func (s *clientStream) open(ctx context.Context, req *ttrpc.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream != nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err // the server would not hear of it
	}
	if s.over {
		return status.Error(codes.Internal, "an interceptor opened a stream after it had returned")
	}
	var message any
	if !s.desc.StreamingClient {
		empty := new(emptypb.Empty) // which encodes to what it does not know
		empty.ProtoReflect().SetUnknown(req.GetPayload())
		message = empty
	}
	c := &streamContext{Context: ctx}
	stream, err := s.client.TTRPC.NewStream(c, s.desc, req.GetService(),
		wire.StreamMethod(req.GetMethod(), req.GetMetadata(), time.Duration(req.GetTimeoutNano())), message)
	if err != nil {
		return err
	}
	s.stream, s.ctx = stream, c
	close(s.opened)
	return nil
}

// SendMsg sends a message. It returns io.EOF, as in gRPC, when the stream has ended well.
func (s *clientStream) SendMsg(m any) error {
	if s.ctx.Context.Err() != nil {
		return s.end(io.EOF)
	}
	return interceptor.StatusError(s.stream.SendMsg(m))
}

// CloseSend ends the client's side. When ctx has ended the server is not told so, because it would take what it has for
// everything.
func (s *clientStream) CloseSend() error {
	if s.ctx.Context.Err() != nil {
		return s.end(nil)
	}
	return interceptor.StatusError(s.stream.CloseSend())
}

// RecvMsg receives a message. When the stream has ended it returns what the interceptors make of its end: io.EOF if it
// ended well.
func (s *clientStream) RecvMsg(m any) error {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return s.end(io.EOF)
	}
	err := s.stream.RecvMsg(m)
	if err == nil && s.desc.StreamingServer {
		s.mu.Unlock()
		return nil
	}
	s.over = true
	if err != io.EOF {
		s.last = err
	}
	close(s.received)
	s.mu.Unlock()
	if s.desc.StreamingServer {
		return s.end(io.EOF)
	}
	return s.end(nil)
}

// end returns how the stream ended, which is well if the interceptors say so.
func (s *clientStream) end(well error) error {
	<-s.returned
	if s.result != nil {
		return s.result
	}
	return well
}

// finish ends the stream for its caller after the interceptors have returned, and drains it: ttrpc holds up the whole
// connection for a second when a stream's messages pile up, and keeps the stream until its end.
func (s *clientStream) finish() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	close(s.returned)
	if s.stream == nil {
		return
	}
	if _, ended := status.FromError(s.last); ended && s.last != nil {
		return // ttrpc would wait for ever
	}
	s.ctx.outlived.Store(true)
	for s.stream.RecvMsg(new(emptypb.Empty)) == nil {
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
