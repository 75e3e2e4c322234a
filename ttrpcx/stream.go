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

// clientStream is a stream with the client's interceptors around it. They run in a goroutine of their own, which starts
// before the stream opens and ends after the stream.
type clientStream struct {
	client *Client
	desc   *ttrpc.StreamDesc

	opened   chan struct{} // closed when stream and ctx are set
	received chan struct{} // closed when last is set
	returned chan struct{} // closed when result is set

	stream ttrpc.ClientStream
	ctx    *streamContext // of stream
	last   error          // of the last RecvMsg of stream; nil if the stream ended with success
	waited atomic.Bool    // an invoker has seen the end of stream
	result error          // of the interceptors; nil only after such an end

	mu   sync.Mutex // held while stream is opened or a message is received
	over bool       // only finish may still receive from stream, and it cannot be opened any more
}

// openStream returns the stream when it is open, or an error if the interceptors do not open it.
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
		if v := recover(); v != nil { // in this goroutine, the caller cannot recover from it
			s.client.logger.Error("interceptor panicked", "method", method,
				"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			s.result = status.Errorf(codes.Internal, "an interceptor panicked: %v", v)
		}
		if s.result == nil && !s.waited.Load() {
			s.result = status.Error(codes.Internal, "an interceptor returned no error before the stream had ended")
		}
		cancel() // ends a RecvMsg that still waits
		s.finish()
	}()
	resp := new(ttrpc.Response)
	err := s.client.intercept(ctx, req, resp, &ttrpc.UnaryClientInfo{FullMethod: method}, s.invoke)
	if err == nil {
		err = status.ErrorProto(resp.GetStatus()) // nil for OK
	}
	s.result = err
}

// invoke is the invoker that the innermost interceptor calls. It opens the stream and waits for its end. A second call
// waits for the same stream.
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
	if st, ok := status.FromError(err); ok { // the server's status, or no error
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
		return err // the server would never learn that the context has ended
	}
	if s.over {
		return status.Error(codes.Internal, "an interceptor opened a stream after it had returned")
	}
	var message any
	if !s.desc.StreamingClient {
		empty := new(emptypb.Empty) // unknown fields are encoded unchanged
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

// SendMsg sends a message. If the stream has ended with success, it returns io.EOF, as in gRPC.
func (s *clientStream) SendMsg(m any) error {
	if s.ctx.Err() != nil {
		return s.end(io.EOF)
	}
	return interceptor.StatusError(s.stream.SendMsg(m))
}

// CloseSend tells the server that the client sends no more messages. After the end of ctx it sends nothing: otherwise
// the server would think that it has all messages.
func (s *clientStream) CloseSend() error {
	if s.ctx.Err() != nil {
		return s.end(nil)
	}
	return interceptor.StatusError(s.stream.CloseSend())
}

// RecvMsg receives a message. At the end of the stream it returns the error of the interceptors, or io.EOF if they
// return none.
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

// end waits for the interceptors and returns their error, or success if they return none.
func (s *clientStream) end(success error) error {
	<-s.returned
	if s.result != nil {
		return s.result
	}
	return success
}

// finish ends the stream for its caller after the interceptors have returned. Then it receives and drops messages until
// the stream ends. Otherwise they could fill the stream's buffer, and then ttrpc stops reading the whole connection for
// a second. ttrpc also keeps the stream in memory until its end was received.
func (s *clientStream) finish() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	close(s.returned)
	if s.stream == nil {
		return
	}
	if _, ended := status.FromError(s.last); ended && s.last != nil {
		return // RecvMsg would wait forever
	}
	s.ctx.detached.Store(true)
	for s.stream.RecvMsg(new(emptypb.Empty)) == nil {
	}
}

// streamContext is the context of a stream. Once detached is set, a cancellation has no effect any more, so that finish
// can receive until the stream's end.
type streamContext struct {
	context.Context
	detached atomic.Bool
}

// Done returns nil, which means "never", once the context is detached.
func (c *streamContext) Done() <-chan struct{} {
	if c.detached.Load() {
		return nil
	}
	return c.Context.Done()
}
