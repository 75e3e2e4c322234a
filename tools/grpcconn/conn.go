// Package grpcconn is a gRPC client connection that speaks ttrpc: gRPC's stubs, and what is built on them such as
// grpcurl, call ttrpc servers through it, which need to know nothing of it.
//
// What gRPC has and ttrpc lacks is missing here, too: answers have no headers and no trailers, and no call option has
// an effect. Metadata whose key ends in -bin travels in base64, as in gRPC over HTTP/2.
package grpcconn

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Dial returns a new connection to a server. ctx is the call's.
type Dial func(ctx context.Context) (net.Conn, error)

// Conn makes calls, each on a connection of its own: closing it is the only way to cancel a call in ttrpc. In addition,
// a slow reader then delays no other call.
//
// All errors have a status, and those that began as something else (a failed Dial, ErrClosed, NotTTRPCError) are still
// found by errors.Is and errors.As. A connection that is lost is Unavailable; the call may have run or not.
//
// As with a grpc.ClientConn, a caller that opens a stream must read it to its end or cancel its context.
//
// Servers with ttrpc before v1.2.8 crash if a message arrives for a stream that they have just ended. Nothing is sent
// for a stream that is known to have ended. But a caller that sends to a stream that the server may end at any moment
// takes that risk.
type Conn struct {
	dial Dial
	kept *kept // nil if each call has a connection of its own
}

var _ grpc.ClientConnInterface = (*Conn)(nil)

// New returns a Conn for the server that dial connects to. It holds nothing open between calls, so there is no Close.
func New(dial Dial) *Conn { return &Conn{dial: dial} }

// Keep returns a Conn for small calls that share a connection, which lives from the first of them until ctx ends. They
// are made one after the other, but streams may stay open. A call that is cancelled goes on at the server until ctx
// ends, and a stream that is not read stops all.
func (c *Conn) Keep(ctx context.Context) *Conn { return &Conn{c.dial, &kept{ctx: ctx}} }

// kept is the connection of a Conn that Keep has made.
type kept struct {
	ctx    context.Context
	client *ttrpc.Client // nil before the first call
	conn   *guarded
}

// Invoke makes a unary call.
func (c *Conn) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	req, err := encode(args)
	if err != nil {
		return err
	}
	call, err := c.newCall(ctx, method)
	if err != nil {
		return err
	}
	defer call.cancel()
	resp := new(raw)
	if err := call.client.Call(call.ctx, call.service, call.method, req, resp); err != nil {
		return call.status(err)
	}
	return decode(resp, reply)
}

// Call makes a unary call with a client that others may use at the same time. Without a connection of its own, the call
// goes on at the server when ctx ends, until the deadline that the server was told, because ttrpc cannot cancel it.
func Call(ctx context.Context, client *ttrpc.Client, fullMethod string, args, reply any) error {
	md, err := outgoing(ctx)
	if err != nil {
		return err
	}
	service, method, err := split(fullMethod)
	if err != nil {
		return err
	}
	req, err := encode(args)
	if err != nil {
		return err
	}
	resp := new(raw)
	if err := client.Call(ttrpc.WithMetadata(ctx, md), service, method, req, resp); err != nil {
		if _, ok := status.FromError(err); !ok && ctx.Err() != nil {
			err = ctx.Err()
		}
		return withStatus(err, codes.Unknown)
	}
	return decode(resp, reply)
}

// split returns the service and the method of "/package.Service/Method".
func split(fullMethod string) (service, method string, err error) {
	slash := strings.LastIndexByte(fullMethod, '/')
	if slash < 0 {
		return "", "", status.Errorf(codes.Internal, "method %q has no service: want /SERVICE/METHOD", fullMethod)
	}
	return strings.TrimPrefix(fullMethod[:slash], "/"), fullMethod[slash+1:], nil
}

// NewStream opens a stream. One without client messages is opened by the first SendMsg.
func (c *Conn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption,
) (grpc.ClientStream, error) {
	call, err := c.newCall(ctx, method)
	if err != nil {
		return nil, err
	}
	return newStream(call, desc)
}

// call is one call and its connection.
type call struct {
	ctx             context.Context // has the metadata where ttrpc looks for it
	cancel          context.CancelFunc
	service, method string
	client          *ttrpc.Client
	conn            *guarded
}

func (c *Conn) newCall(ctx context.Context, fullMethod string) (*call, error) {
	md, err := outgoing(ctx)
	if err != nil {
		return nil, err
	}
	service, method, err := split(fullMethod)
	if err != nil {
		return nil, err
	}
	callCtx, cancel := context.WithCancel(ttrpc.WithMetadata(ctx, md))
	client, conn, err := c.connect(ctx, callCtx)
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, withStatus(err, codes.Unavailable)
	}
	return &call{
		ctx:     callCtx,
		cancel:  cancel,
		service: service,
		method:  method,
		client:  client,
		conn:    conn,
	}, nil
}

// connect returns a connection that is closed when the call's context ends, or the kept one.
func (c *Conn) connect(dialCtx, callCtx context.Context) (*ttrpc.Client, *guarded, error) {
	until := callCtx
	if k := c.kept; k != nil {
		if k.client != nil {
			return k.client, k.conn, nil
		}
		until = k.ctx
	}
	conn, err := c.dial(dialCtx)
	if err != nil {
		return nil, nil, err
	}
	// ttrpc neither tells the server of a call that is cancelled nor gives up a write that is stuck.
	context.AfterFunc(until, func() { _ = conn.Close() })
	g := &guarded{Conn: conn}
	client := ttrpc.NewClient(g)
	if c.kept != nil {
		c.kept.client, c.kept.conn = client, g
	}
	return client, g, nil
}

// status gives the call's error a status. One that comes from closing the connection is the reason for that.
func (c *call) status(err error) error {
	if _, ok := status.FromError(err); !ok {
		if reason := c.conn.reason.Load(); reason != nil {
			err = *reason
		} else if c.ctx.Err() != nil {
			err = c.ctx.Err()
		}
	}
	return withStatus(err, codes.Unknown)
}

// outgoing returns the call's metadata for ttrpc, where values are protobuf strings.
func outgoing(ctx context.Context) (ttrpc.MD, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	out := make(ttrpc.MD, len(md))
	for key, values := range md {
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.RawStdEncoding.EncodeToString([]byte(value))
			} else if !utf8.ValidString(value) {
				return nil, status.Errorf(codes.Internal,
					"metadata %q is not valid UTF-8: a key that ends in -bin may carry it", key)
			}
			out[key] = append(out[key], value)
		}
	}
	return out, nil
}

// withStatus gives err a status, by default with the given code.
func withStatus(err error, code codes.Code) error {
	err = interceptor.StatusError(err)
	if _, ok := status.FromError(err); ok {
		return err
	}
	return &statusError{status.New(code, err.Error()), err}
}

type statusError struct {
	status *status.Status
	error
}

func (e *statusError) GRPCStatus() *status.Status { return e.status }
func (e *statusError) Unwrap() error              { return e.error }

// NotTTRPCError says that what a server sent cannot be the answer to a ttrpc call.
type NotTTRPCError struct {
	Sent []byte // its first bytes
}

func (e *NotTTRPCError) Error() string {
	speaks := fmt.Sprintf("it sent %q", e.Sent)
	switch {
	case bytes.HasPrefix(e.Sent, []byte("HTTP/")):
		speaks = "it speaks HTTP/1, as curl does"
	case len(e.Sent) > 8 && e.Sent[3] == 4 && bytes.Equal(e.Sent[4:9], make([]byte, 5)):
		// SETTINGS: RFC 9113, section 6.5
		speaks = "it speaks HTTP/2, as gRPC and grpcurl do"
	case len(e.Sent) > 1 && e.Sent[0] == 0x15 && e.Sent[1] == 3: // an alert: RFC 8446, section 5.1
		speaks = "it wants TLS"
	}
	return "the server does not speak ttrpc: " + speaks
}

// guarded is a connection that is read only when there is room for what it brings, and only while it brings ttrpc.
type guarded struct {
	net.Conn
	opens  context.Context       // of the stream that the next frame which is written opens; else nil
	queue  atomic.Pointer[queue] // of the latest stream; else nil
	first  [wire.HeaderSize]byte // what was read first
	have   int                   // of it
	reason atomic.Pointer[error] // why reading has ended: ttrpc.Client tells its calls that it has, not why
}

// Write adds the call's metadata and deadline to the request of a stream, because ttrpc sends them with unary calls
// only. They come before the request, in the same frame: two encoded messages of one type, one after the other, decode
// to both of them merged, https://protobuf.dev/programming-guides/encoding/#last-one-wins.
func (c *guarded) Write(p []byte) (int, error) {
	h, ok := wire.ParseHeader(p)
	if c.opens == nil || !ok { // ttrpc never splits a header
		return c.Conn.Write(p)
	}
	ctx := c.opens
	c.opens = nil
	var r ttrpc.Request
	if deadline, ok := ctx.Deadline(); ok {
		r.TimeoutNano = time.Until(deadline).Nanoseconds()
	}
	md, _ := ttrpc.GetMetadata(ctx)
	for key, values := range md {
		for _, value := range values {
			r.Metadata = append(r.Metadata, &ttrpc.KeyValue{Key: key, Value: value})
		}
	}
	carried, err := proto.Marshal(&r)
	if err != nil {
		return 0, err
	}
	if err := ttrpc.OversizedMessageError(int(h.Length) + len(carried)); err != nil {
		return 0, err
	}
	h.Length += uint32(len(carried))
	if _, err := c.Conn.Write(append(append(h.Append(nil), carried...), p[wire.HeaderSize:]...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *guarded) Read(p []byte) (int, error) {
	if q := c.queue.Load(); q != nil {
		q.waitForRoom()
	}
	n, err := c.Conn.Read(p)
	if q := c.queue.Load(); q != nil {
		q.read(n)
	}
	if c.have < len(c.first) {
		c.have += copy(c.first[c.have:], p[:n])
		// Clients have odd numbers, and each answer has that of its call.
		if h, ok := wire.ParseHeader(c.first[:c.have]); ok &&
			(h.StreamID%2 == 0 || h.Type != wire.TypeResponse && h.Type != wire.TypeData) {
			n, err = 0, &NotTTRPCError{c.first[:]}
		}
	}
	if err != nil && err != io.EOF && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		c.reason.CompareAndSwap(nil, &err)
	}
	return n, err
}
