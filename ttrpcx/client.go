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

// Client calls the methods of one server, over one connection that outlives the server: see wire.ClientConn.
//
// Its interceptors are of ttrpc's type for unary calls, and run around streams as well. Around a stream, the invoker
// opens it and returns when it ends, without opening another if it is called again; the request has the metadata and the timeout that are sent, and the first message if
// the client sends only one; the response gets the status with which the server ends the stream, and no message. From the outside
// in, each call passes: the log, the interceptors of ClientOptions, and what gives each error a status.
type Client struct {
	// TTRPC is the client inside, for code that was generated for ttrpc alone. Streams that are opened with it and not with
	// Client send neither metadata nor deadline and have no interceptors, as in ttrpc.
	TTRPC *ttrpc.Client

	logger    *slog.Logger
	intercept ttrpc.UnaryClientInterceptor
	closed    chan struct{}
}

// NewClient dials the server for the first time and returns that attempt's error as it is: see Dial. ctx bounds this alone.
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

// Call makes a unary call. It is what ttrpc.Client has, and every error has a status.
func (c *Client) Call(ctx context.Context, service, method string, req, resp any) error {
	return c.TTRPC.Call(ctx, service, method, req, resp)
}

// NewStream opens a stream. It is what ttrpc.Client has, except that the stream carries the metadata and the deadline of
// ctx, that it runs inside the client's interceptors, and that every error but io.EOF has a status. req is nil unless
// the client sends one message only.
//
// A stream that is not received from to its end, which is any error of RecvMsg, lasts until ctx ends or the client is
// closed. What the server sends on a stream whose ctx has ended is read and dropped.
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
		return nil, status.Errorf(codes.Internal, "send a %T, which is no message", req)
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
