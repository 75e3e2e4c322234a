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

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
)

// LogOptions are the options of [Log].
type LogOptions struct {
	// Logger gets the lines. Default: slog.Default() at the time of the call of Log. If it is limited, as the one of
	// ttrpcx.ServerOptions is, a line that is left out costs nothing.
	Logger *slog.Logger

	// Peer returns an attribute that identifies the caller, from the context of the call. Default: none.
	Peer func(context.Context) slog.Attr
}

// Log logs one line at the end of each call, with the message "call served" and the attributes
//
//   - method: the full name, such as "/test.v1.Test/Unary",
//   - metadata: that of the caller, as in [Metadata],
//   - the attribute of LogOptions.Peer, if set,
//   - duration: from the call's arrival at Log to the handler's end,
//   - code: the name of the status code that is sent,
//   - request_bytes and response_bytes: the encoded size of all messages received and sent, without frames and headers,
//   - error: the message of the status, unless the code is OK.
//
// The level is Error for the codes that mean a fault of the server (Internal, Unknown, DataLoss): such a line is
// something to repair. It is Info for all other codes. A caller can cause them as often as it likes, and a server
// without faults gives such answers, too.
//
// Log cannot see one failure: a response with invalid UTF-8 in a string field. The line says OK, and ttrpc answers
// Internal, because it encodes the response later.
//
// If the logger's level is above Error, Log costs nothing.
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
		sent := Metadata(md) // now, because the handler may change the map
		counted := &countedStream{StreamServer: stream}

		resp, err := handler(ctx, counted)

		duration := time.Since(start)
		st := serverStatus(err)
		level := levelOf(st.Code())
		if !logger.Enabled(ctx, level) {
			return resp, err
		}
		const message = "call served"
		admitted, _ := loglimit.Admit(ctx, logger.Handler(), message, st.Code().String())
		if admitted == nil {
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
		slog.New(admitted).LogAttrs(ctx, level, message, attrs...)
		return resp, err
	}
}

// ClientLog logs one line at the end of each call to logger (nil: slog.Default()), with the message "call made" and the
// attributes method, metadata, duration, code and error of [Log]. The caller gets this code if [ClientStatus] is inside
// ClientLog, or if the caller uses [StatusError].
//
// The level is Error for the codes that mean a fault of the server, as in Log, and for Unavailable, because then the
// server cannot be reached. It is Info for all other codes.
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
		if err == nil { // ttrpc turns the server's status into an error only after the interceptors
			st = status.FromProto(reply.GetStatus())
		}
		level := levelOf(st.Code())
		if st.Code() == codes.Unavailable {
			level = slog.LevelError
		}
		if !logger.Enabled(ctx, level) {
			return err
		}
		md := ttrpc.MD{}
		for _, kv := range req.GetMetadata() {
			md[kv.GetKey()] = append(md[kv.GetKey()], kv.GetValue())
		}
		logger.LogAttrs(ctx, level, "call made",
			slog.String("method", info.FullMethod),
			Metadata(md),
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

// maxLoggedText bounds the text in bytes that a caller can put into a line. A frame would have room for 4 MiB.
const maxLoggedText = 1 << 10

// maxLoggedValues bounds the values of metadata in a line, because each takes some characters if it is empty, too.
const maxLoggedValues = 64

// errorAttr returns the attribute for the error. It is empty if the code is OK, and slog omits empty attributes.
func errorAttr(st *status.Status) slog.Attr {
	if st.Code() == codes.OK {
		return slog.Attr{}
	}
	return slog.String("error", cut(st.Message(), maxLoggedText))
}

// metadata is logged as a JSON object of lists, by slog's JSON handler and by its text handler.
type metadata map[string][]string

func (m metadata) String() string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string][]string(m)) // never fails for this type
	return strings.TrimSuffix(b.String(), "\n")
}

// Metadata returns the attribute "metadata" for the log: md as JSON, with credentials hidden. The attribute is empty if
// md is. A caller can send millions of values in one request, so of metadata over 1 KiB or 64 values, the attribute has
// only the number of values. It is a copy, because slog handlers may keep it.
func Metadata(md ttrpc.MD) slog.Attr {
	if len(md) == 0 {
		return slog.Attr{}
	}
	n, size := 0, 0
	for name, values := range md {
		n += max(1, len(values))
		if size += len(name); n <= maxLoggedValues {
			for _, v := range values {
				size += len(v)
			}
		}
	}
	if n > maxLoggedValues || size > maxLoggedText {
		return slog.String("metadata", fmt.Sprintf("%d values under %d names", n, len(md)))
	}
	logged := metadata(md.Clone())
	for name, values := range logged {
		if isSecret(name) {
			for i := range values {
				values[i] = "REDACTED"
			}
		}
	}
	return slog.Any("metadata", logged)
}

// isSecret reports whether name is that of a header with credentials in HTTP. Callers use these names in metadata, too.
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
