package interceptor

import (
	"context"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Memory counts each handler, and the messages that wait for it, in the wire.Account of its connection. Without an
// account in the context, it does nothing. A call ends with ResourceExhausted if too many handlers of its user run, or
// if there is no memory left for a message that its handler is too slow to receive.
//
// It receives the messages of a stream as they arrive. ttrpc keeps 64, and when these have waited for a second, it ends
// the stream, and all calls of the connection have waited as long.
func Memory() ttrpc.StreamServerInterceptor {
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		account := wire.AccountFromContext(ctx)
		if account == nil {
			return handler(ctx, stream)
		}
		call, err := account.Begin()
		if err != nil {
			return nil, err
		}
		defer call.End()
		ctx = call.NewContext(ctx)
		if info.StreamingClient {
			r := receive(ctx, stream, call)
			defer r.stop()
			stream = r
		}
		return handler(ctx, stream)
	}
}

// receiver is a stream whose messages are received before its handler asks for them, and whose RecvMsg returns when ctx
// ends. ttrpc's RecvMsg knows only the context that it has made.
type receiver struct {
	ttrpc.StreamServer
	ctx context.Context
	*inbox
}

// receive starts to receive. The messages count for call, unless it is nil. The goroutine ends when the handler has
// returned, because ttrpc ends the stream then.
func receive(ctx context.Context, stream ttrpc.StreamServer, call *wire.Call) *receiver {
	r := &receiver{stream, ctx, &inbox{call: call, ready: make(chan struct{}, 1)}}
	go r.fill(stream)
	return r
}

// RecvMsg returns the next message, or an error of the stream after all messages.
func (r *receiver) RecvMsg(m any) error {
	for {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		encoded, ok, err := r.next()
		switch {
		case ok:
			return unmarshal(encoded, m)
		case err != nil:
			return err
		}
		select {
		case <-r.ready:
		case <-r.ctx.Done():
		}
	}
}

// inbox has the messages of a stream that its handler has not received yet.
type inbox struct {
	call  *wire.Call
	ready chan struct{} // has room for one; filled when something below has changed

	mu       sync.Mutex
	messages [][]byte
	err      error // after messages
	stopped  bool  // nobody receives any more
}

// cost returns what a message takes in an inbox: a few words, and twice its bytes, because ttrpc's buffer is still
// there when it is put in, and the handler's message when it is taken out.
func cost(encoded []byte) int { return 64 + 2*len(encoded) }

// fill receives messages until the stream ends. An empty message keeps what it unmarshals, because it knows no fields.
func (b *inbox) fill(stream ttrpc.StreamServer) {
	for {
		m := new(emptypb.Empty)
		err := stream.RecvMsg(m)
		b.put(m.ProtoReflect().GetUnknown(), err)
		if _, ok := status.FromError(err); !ok {
			return // the stream has ended; an error with a status is that of one message
		}
	}
}

// put adds a message. After an error, all further messages are dropped, so that they do not hold up the connection.
func (b *inbox) put(encoded []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.stopped {
		return
	}
	if err == nil && b.call != nil {
		err = b.call.Reserve(cost(encoded))
	}
	if b.err = err; err == nil {
		b.messages = append(b.messages, encoded)
	}
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// next takes a message out. ok is false if there is none.
func (b *inbox) next() (encoded []byte, ok bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.messages) == 0 {
		return nil, false, b.err
	}
	encoded = b.messages[0]
	b.messages[0] = nil
	if b.messages = b.messages[1:]; len(b.messages) == 0 {
		b.messages = nil // keeps no room of its busiest time
	}
	b.release(encoded)
	b.signal() // for another goroutine that receives
	return encoded, true, nil
}

func (b *inbox) release(encoded []byte) {
	if b.call != nil {
		b.call.Release(cost(encoded))
	}
}

// stop drops what is left. It must run before the call ends.
func (b *inbox) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	for _, encoded := range b.messages {
		b.release(encoded)
	}
	b.messages = nil
}
