package interceptor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// LogOptions says where [Log] writes and what it adds.
type LogOptions struct {
	// Logger takes the lines. Default: slog.Default() at the time of the call of Log.
	Logger *slog.Logger

	// Peer returns an attribute that tells who calls, given the context of the call. Default: none.
	Peer func(context.Context) slog.Attr
}

// Log writes one line for each call when it has ended, with the message "call served" and the attributes
//
//   - method: the full name, such as "/test.v1.Test/Unary",
//   - metadata: what the caller sent along, if anything, as JSON,
//   - the peer's, if asked for,
//   - duration: from the call's arrival at Log to the handler's end,
//   - code: the name of the status code that is sent,
//   - request_bytes and response_bytes: the encoded size of all messages received and sent, without frames and headers,
//   - error: the message of the status, unless the code is OK.
//
// The level is Error for the codes that say that the server is at fault (Internal, Unknown, DataLoss), so that an error
// in the log is something to repair. It is Info for all others: a caller may provoke them at will, or they are answers
// that a healthy server gives.
//
// One failure comes too late for Log: a response with invalid UTF-8 in a string field. ttrpc answers Internal when it
// comes to encode it, while the line says OK.
//
// A logger that takes no errors costs nothing: the call passes through.
func Log(opts LogOptions) ttrpc.StreamServerInterceptor {
	logger, peer := orDefault(opts.Logger), opts.Peer
	return func(ctx context.Context, stream ttrpc.StreamServer, info *ttrpc.StreamServerInfo,
		handler ttrpc.StreamHandler,
	) (any, error) {
		if !logger.Enabled(ctx, slog.LevelError) {
			return handler(ctx, stream)
		}
		start := time.Now()
		md, _ := ttrpc.GetMetadata(ctx)
		sent := metadataAttr(md) // now, because the handler may alter the map
		counted := &countedStream{StreamServer: stream}

		resp, err := handler(ctx, counted)

		duration := time.Since(start)
		st := serverStatus(err)
		level := levelOf(st.Code())
		if !logger.Enabled(ctx, level) {
			return resp, err
		}
		attrs := append(make([]slog.Attr, 0, 8), slog.String("method", info.FullMethod), sent)
		if peer != nil {
			attrs = append(attrs, peer(ctx))
		}
		responseBytes := counted.sent.Load()
		if err == nil {
			responseBytes += int64(sizeOf(resp))
		}
		attrs = append(attrs,
			slog.Duration("duration", duration),
			slog.String("code", st.Code().String()),
			slog.Int64("request_bytes", counted.received.Load()),
			slog.Int64("response_bytes", responseBytes),
			errorAttr(st))
		logger.LogAttrs(ctx, level, "call served", attrs...)
		return resp, err
	}
}

// ClientLog writes one line for each unary call to logger (nil: slog.Default()), with the message "call made"
// and the attributes method, metadata, duration, code and error as [Log] does. The code is what the caller gets if
// [ClientStatus] stands further in, or if the caller uses [StatusError].
//
// The level is Error if the server says that it is at fault, as with Log, or cannot be reached (Unavailable). It is
// Info for all else.
func ClientLog(logger *slog.Logger) ttrpc.UnaryClientInterceptor {
	logger = orDefault(logger)
	return func(ctx context.Context, req *ttrpc.Request, reply *ttrpc.Response, info *ttrpc.UnaryClientInfo,
		invoke ttrpc.Invoker,
	) error {
		if !logger.Enabled(ctx, slog.LevelError) {
			return invoke(ctx, req, reply)
		}
		start := time.Now()

		err := invoke(ctx, req, reply)

		duration := time.Since(start)
		st := status.Convert(StatusError(err))
		if err == nil { // ttrpc makes an error of the server's status only after the interceptors
			st = status.FromProto(reply.GetStatus())
		}
		level := levelOf(st.Code())
		if st.Code() == codes.Unavailable {
			level = slog.LevelError
		}
		if !logger.Enabled(ctx, level) {
			return err
		}
		md := make(ttrpc.MD, len(req.GetMetadata()))
		for _, kv := range req.GetMetadata() {
			md[kv.GetKey()] = append(md[kv.GetKey()], kv.GetValue())
		}
		logger.LogAttrs(ctx, level, "call made",
			slog.String("method", info.FullMethod),
			metadataAttr(md),
			slog.Duration("duration", duration),
			slog.String("code", st.Code().String()),
			errorAttr(st))
		return err
	}
}

func levelOf(code codes.Code) slog.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// maxLoggedText bounds, in bytes, what a caller can put into a line: a frame would have room for 4 MiB.
const maxLoggedText = 1 << 10

// errorAttr returns the attribute that a handler leaves out if the code is OK.
func errorAttr(st *status.Status) slog.Attr {
	if st.Code() == codes.OK {
		return slog.Attr{}
	}
	return slog.String("error", cut(st.Message(), maxLoggedText))
}

// metadata is logged as a JSON object of lists, by handlers that encode JSON and by those that format text.
type metadata map[string][]string

func (m metadata) String() string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string][]string(m)) // cannot fail for this type
	return strings.TrimSuffix(b.String(), "\n")
}

// metadataAttr returns a copy of md for the log, as slog handlers may keep it, and the attribute that a handler leaves
// out if there is none. Credentials are not for the log, nor is more than maxLoggedText.
func metadataAttr(md ttrpc.MD) slog.Attr {
	if len(md) == 0 {
		return slog.Attr{}
	}
	size := 0
	logged := metadata(md.Clone())
	for name, values := range logged {
		if isSecret(name) {
			for i := range values {
				values[i] = "REDACTED"
			}
		}
		size += len(name)
		for _, v := range values {
			size += len(v)
		}
	}
	if size > maxLoggedText {
		return slog.String("metadata", fmt.Sprintf("%d bytes under %d names", size, len(md)))
	}
	return slog.Any("metadata", logged)
}

// isSecret knows the headers that carry credentials in HTTP, whose names callers use in metadata as well.
func isSecret(name string) bool {
	switch strings.ToLower(name) {
	case "authorization", "proxy-authorization", "cookie":
		return true
	}
	return false
}

// countedStream counts the bytes of messages. A handler may receive and send at the same time.
type countedStream struct {
	ttrpc.StreamServer
	received, sent atomic.Int64
}

func (s *countedStream) RecvMsg(m any) error {
	err := s.StreamServer.RecvMsg(m)
	if err == nil {
		s.received.Add(int64(sizeOf(m)))
	}
	return err
}

func (s *countedStream) SendMsg(m any) error {
	err := s.StreamServer.SendMsg(m)
	if err == nil {
		s.sent.Add(int64(sizeOf(m)))
	}
	return err
}
