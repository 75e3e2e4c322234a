package ttrpcx

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// Client calls the methods of one server. It has one connection, which is made again after the server was restarted:
// see wire.ClientConn.
//
// Each call passes, from the outside in: the log, the interceptors of ClientOptions, and an interceptor that gives each
// error a status. They have ttrpc's type for unary calls, and run around streams as well. For a stream,
//   - the invoker opens the stream, and returns when the stream ends; a second call waits for the same stream,
//   - the request has the metadata and the timeout that are sent, and the first message if the client sends only one,
//   - the response gets the status with which the server ends the stream, and no message.
type Client struct {
	// TTRPC is the ttrpc client that Client uses. Code that was generated for ttrpc alone needs it. A stream that is
	// opened with it is as in ttrpc: it sends neither metadata nor a deadline, and has no interceptors.
	TTRPC *ttrpc.Client

	logger    *slog.Logger
	intercept ttrpc.UnaryClientInterceptor
	closed    chan struct{}
}

// NewClient dials the server, and returns Dial's error if it cannot. ctx bounds this first connection only.
func NewClient(ctx context.Context, options ClientOptions) (*Client, error) {
	options.Logger = cmp.Or(options.Logger, slog.Default())
	conn, err := Dial(ctx, options)
	if err != nil {
		return nil, err
	}
	options.Logger.Info("client start", "address", options.Address)
	all := append([]ttrpc.UnaryClientInterceptor{interceptor.ClientLog(options.Logger)}, options.Interceptors...)
	c := &Client{
		logger:    options.Logger,
		intercept: interceptor.ChainClient(append(all, interceptor.ClientStatus())...),
		closed:    make(chan struct{}),
	}
	c.TTRPC = ttrpc.NewClient(conn, ttrpc.WithUnaryClientInterceptor(c.intercept),
		ttrpc.WithOnClose(func() { close(c.closed) }))
	return c, nil
}

// Call makes a unary call, as ttrpc.Client.Call does. Every error has a status.
func (c *Client) Call(ctx context.Context, service, method string, req, resp any) error {
	return c.TTRPC.Call(ctx, service, method, req, resp)
}

// NewStream opens a stream, as ttrpc.Client.NewStream does. In addition, it sends the metadata and the deadline of ctx,
// the client's interceptors run around the stream, and every error except io.EOF has a status. req is nil unless the
// client sends only one message.
//
// A stream ends when RecvMsg returns an error, ctx ends or the client is closed. So receive until an error, or end ctx.
// Messages that the server sends after the end of ctx are dropped.
func (c *Client) NewStream(
	ctx context.Context, desc *ttrpc.StreamDesc, service, method string, req any,
) (ttrpc.ClientStream, error) {
	request := &ttrpc.Request{Service: service, Method: method}
	switch m := req.(type) {
	case nil:
	case proto.Message:
		var err error
		if request.Payload, err = proto.Marshal(m); err != nil {
			return nil, status.Errorf(codes.Internal, "marshal the request: %v", err)
		}
	default:
		return nil, status.Errorf(codes.Internal, "send a %T: want a protobuf message", req)
	}
	md, _ := ttrpc.GetMetadata(ctx)
	for key, values := range md {
		for _, value := range values {
			request.Metadata = append(request.Metadata, &ttrpc.KeyValue{Key: key, Value: value})
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		request.TimeoutNano = time.Until(deadline).Nanoseconds()
	}
	return openStream(ctx, c, desc, request)
}

// Close ends all calls and closes the connection.
func (c *Client) Close() error { return c.TTRPC.Close() }
