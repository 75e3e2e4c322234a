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

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Field numbers of ttrpc.Response, the payload of the frame that ends a call.
const (
	responseStatus  protowire.Number = 1
	responsePayload protowire.Number = 2
)

// maxReplacedMessage is how many bytes of the message are kept if a status is too large: enough to recognize the error.
const maxReplacedMessage = 1 << 10

// Sendable replaces answers that ttrpc cannot send. Without it, such an answer makes ttrpc close the connection, with
// all calls on it. So
//
//   - a response that is over ttrpc's limit of 4 MiB for a frame becomes ResourceExhausted, with both sizes,
//   - the handler gets the same error if it sends such a message on a stream, and the stream stays usable,
//   - a status that is over the limit keeps its code and the start of its message, and loses its details,
//   - invalid UTF-8 in an error's message, which protobuf cannot encode, is replaced by U+FFFD,
//   - if a handler returns neither a response nor an error, and its method needs one, the answer is Internal,
//   - an answer for which the server has no memory left becomes ResourceExhausted. Answers count in the wire.Account of
//     their connection, if it has one, until they are written.
//
// An error that wraps the error of the handler's context gets its code, Canceled or DeadlineExceeded. ttrpc does that
// only if it is not wrapped. An error that wraps ttrpc.ErrClosed gets Canceled, because the connection was closed by
// the caller.
func Sendable() ttrpc.StreamServerInterceptor {
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		if info.StreamingServer || info.StreamingClient { // a unary call cannot send
			stream = sendableStream{stream, wire.CallFromContext(ctx)}
		}
		resp, err := handler(ctx, stream)
		if err != nil {
			return nil, sendableError(ctx, err)
		}
		if !info.StreamingServer && isNil(resp) {
			return nil, errNoResponse
		}
		size := responseSize(responsePayload, sizeOf(resp))
		if err := checkSize(size); err != nil {
			return nil, err
		}
		if account := wire.AccountFromContext(ctx); account != nil {
			if err := account.Answer(size); err != nil {
				return nil, err
			}
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

type sendableStream struct {
	ttrpc.StreamServer
	call *wire.Call
}

func (s sendableStream) SendMsg(m any) error {
	size := sizeOf(m)
	if err := checkSize(size); err != nil { // the payload of its frame is the message only
		return err
	}
	if s.call != nil {
		held := 2 * size // the message and its encoding
		if err := s.call.ReserveAnswer(held); err != nil {
			return err
		}
		defer s.call.Release(held)
	}
	return s.StreamServer.SendMsg(m)
}

func checkSize(size int) error {
	if size <= wire.MaxPayload {
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "response of %d bytes is over the limit of %d", size, wire.MaxPayload)
}

// responseSize returns the size of a ttrpc.Response that has only this field, with n bytes.
func responseSize(field protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

// sizeOf returns the encoded size of m in bytes. It is 0 if m is not a protobuf message, because ttrpc does not encode
// m then.
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
	if st.Code() == codes.Unknown && errors.Is(err, ttrpc.ErrClosed) { // the caller has disconnected
		st = status.New(codes.Canceled, err.Error())
		err = &statusError{st, err}
	}
	size, ok := statusSize(st)
	if ok && size <= wire.MaxPayload {
		return err
	}
	p := st.Proto()
	p.Message = strings.ToValidUTF8(p.Message, string(utf8.RuneError))
	st = status.FromProto(p)
	if size, ok = statusSize(st); !ok || size > wire.MaxPayload {
		st = status.New(st.Code(), cut(p.Message, maxReplacedMessage))
	}
	return &statusError{st, err}
}

// statusSize returns the size of the ttrpc.Response with st, and whether st can be encoded. The only way to know is to
// encode it.
func statusSize(st *status.Status) (size int, ok bool) {
	encoded, err := proto.Marshal(st.Proto())
	return responseSize(responseStatus, len(encoded)), err == nil
}

// cut shortens s to about n bytes, and appends its full size.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:n], ""), len(s))
}
