package interceptor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// ttrpc tells its limit on the payload of a frame, in bytes, only through this error.
var maxPayload = new(ttrpc.OversizedMessageErr).MaximumLength()

// The numbers of the fields of a ttrpc.Response, which is the payload of the frame that ends a call.
const (
	responseStatus  protowire.Number = 1
	responsePayload protowire.Number = 2
)

// maxReplacedMessage is how many bytes remain of the message of a status that was too large. It is arbitrary: enough to
// recognize the error by.
const maxReplacedMessage = 1 << 10

// Sendable makes every answer of a handler one that can be sent. ttrpc closes the connection, with all calls in flight
// on it, over an answer that cannot. So
//
//   - a response whose frame would be over ttrpc's limit of 4 MiB becomes ResourceExhausted, with both sizes,
//   - sending such a message on a stream returns the same to the handler, and the stream stays usable,
//   - an error's status that is over the limit keeps its code and the start of its message, and loses its details,
//   - invalid UTF-8 in an error's message, which protobuf refuses to encode, is replaced by U+FFFD,
//   - neither a response nor an error, of a method that owes one, becomes Internal.
//
// A handler's error that wraps the error of its context also gets the code of that: ttrpc knows it only bare. One that
// wraps ttrpc.ErrClosed gets Canceled, because sending failed for a caller who has gone.
func Sendable() ttrpc.StreamServerInterceptor {
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		if info.StreamingServer || info.StreamingClient { // a unary call cannot send
			stream = sendableStream{stream}
		}
		resp, err := handler(ctx, stream)
		if err != nil {
			return nil, sendableError(ctx, err)
		}
		if !info.StreamingServer && isNil(resp) {
			return nil, errNoResponse
		}
		if err := checkSize(responseSize(responsePayload, sizeOf(resp))); err != nil {
			return nil, err
		}
		return resp, nil
	}
}

var errNoResponse = status.Error(codes.Internal, "handler returned neither a response nor an error")

func isNil(resp any) bool {
	if m, ok := resp.(proto.Message); ok {
		return !m.ProtoReflect().IsValid()
	}
	return resp == nil
}

type sendableStream struct{ ttrpc.StreamServer }

func (s sendableStream) SendMsg(m any) error {
	if err := checkSize(sizeOf(m)); err != nil { // a message of a stream is the whole payload of its frame
		return err
	}
	return s.StreamServer.SendMsg(m)
}

func checkSize(size int) error {
	if size <= maxPayload {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "response of %d bytes is over the limit of %d", size, maxPayload)
}

// responseSize is the size of a ttrpc.Response that has nothing but n bytes in this field.
func responseSize(field protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

// sizeOf is the encoded size of m in bytes, 0 for what is no message: ttrpc encodes nothing else.
func sizeOf(m any) int {
	if m, ok := m.(proto.Message); ok {
		return proto.Size(m)
	}
	return 0
}

func sendableError(ctx context.Context, err error) error {
	st := serverStatus(err)
	if st.Code() == codes.Unknown && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		st = status.New(status.FromContextError(ctx.Err()).Code(), err.Error())
		err = &statusError{st, err}
	}
	if st.Code() == codes.Unknown && errors.Is(err, ttrpc.ErrClosed) { // the caller has gone
		st = status.New(codes.Canceled, err.Error())
		err = &statusError{st, err}
	}
	size, ok := statusSize(st)
	if ok && size <= maxPayload {
		return err
	}
	p := st.Proto()
	p.Message = strings.ToValidUTF8(p.Message, string(utf8.RuneError))
	st = status.FromProto(p)
	if size, ok = statusSize(st); !ok || size > maxPayload {
		st = status.New(st.Code(), cut(p.Message, maxReplacedMessage))
	}
	return &statusError{st, err}
}

// statusSize is the size of the ttrpc.Response that carries st. It encodes st, because nothing short of that tells
// whether it can be done.
func statusSize(st *status.Status) (size int, ok bool) {
	encoded, err := proto.Marshal(st.Proto())
	return responseSize(responseStatus, len(encoded)), err == nil
}

// cut shortens s to about n bytes and says so.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:n], ""), len(s))
}
