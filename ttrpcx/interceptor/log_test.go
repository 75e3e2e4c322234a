package interceptor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

func codeOf(err error) string { return status.Code(err).String() }

// diff fails the test unless got is want. It removes the duration from got, because a test cannot know it.
func diff(t *testing.T, got, want map[string]any) {
	t.Helper()
	if d, ok := got["duration"].(float64); !ok || d < 0 {
		t.Errorf("duration is %v", got["duration"])
	}
	delete(got, "duration")
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Errorf("line is\n%s, want\n%s", g, w)
	}
}

func TestLog(t *testing.T) {
	type peerKey struct{}
	var lines logBuffer
	chain := interceptor.Chain(
		func(ctx context.Context, s ttrpc.StreamServer, _ *ttrpc.StreamServerInfo, next ttrpc.StreamHandler,
		) (any, error) {
			return next(context.WithValue(ctx, peerKey{}, 7), s)
		},
		interceptor.Log(interceptor.LogOptions{
			Logger: lines.logger(),
			Peer:   func(ctx context.Context) slog.Attr { return slog.Any("uid", ctx.Value(peerKey{})) },
		}))
	// Encoded sizes of the request and the response: each field of n bytes takes n+2.
	sizes := map[string][2]int{"Unary": {6, 6}, "Split": {5, 6}, "Join": {6, 5}, "Echo": {6, 6}}

	ok, _ := serve(t, chain, service{})
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			if err := kind.call(t.Context(), ok); err != nil {
				t.Fatal(err)
			}
			diff(t, lines.one(t), map[string]any{
				"level": "INFO", "msg": "call served", "method": "/test.v1.Test/" + kind.name, "uid": 7,
				"code": "OK", "request_bytes": sizes[kind.name][0], "response_bytes": sizes[kind.name][1],
			})
		})
	}
	failing, _ := serve(t, chain, all(func(context.Context) error { return status.Error(codes.DataLoss, "gone") }))
	for _, kind := range kinds {
		t.Run(kind.name+" fails", func(t *testing.T) {
			if err := kind.call(t.Context(), failing); codeOf(err) != "DataLoss" {
				t.Fatal(err)
			}
			received := 0
			if kind.name == "Unary" || kind.name == "Split" {
				received = sizes[kind.name][0]
			}
			diff(t, lines.one(t), map[string]any{
				"level": "ERROR", "msg": "call served", "method": "/test.v1.Test/" + kind.name, "uid": 7,
				"code": "DataLoss", "error": "gone", "request_bytes": received, "response_bytes": 0,
			})
		})
	}
}

// The level is Error for a fault of the server. The code is the one that the client gets, also if ttrpc chooses it for
// an error without a status.
func TestLogCodes(t *testing.T) {
	var lines logBuffer
	var result error
	client, _ := serve(t, interceptor.Log(interceptor.LogOptions{Logger: lines.logger()}),
		all(func(context.Context) error { return result }))
	serverFault := map[string]bool{"Internal": true, "Unknown": true, "DataLoss": true}

	results := []error{
		errors.New("plain"), context.Canceled, context.DeadlineExceeded, fmt.Errorf("wrap: %w", context.Canceled),
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, io.ErrNoProgress, io.ErrShortBuffer, io.ErrShortWrite,
		os.ErrInvalid, os.ErrExist, os.ErrNotExist, os.ErrPermission, fmt.Errorf("wrap: %w", os.ErrNotExist),
		&os.PathError{Op: "open", Path: "x", Err: os.ErrPermission}, ttrpc.ErrStreamFull,
		uncomparable{"x"},
		fmt.Errorf("wrap: %w", status.Error(codes.Aborted, "try again")),
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		results = append(results, status.Error(code, "explicit"))
	}
	for _, result = range results {
		for _, kind := range kinds {
			code := codeOf(kind.call(t.Context(), client))
			line := lines.one(t)
			if line["code"] != code {
				t.Errorf("%s with %v: logged %v, the client got %s", kind.name, result, line["code"], code)
			}
			if want := map[bool]string{false: "INFO", true: "ERROR"}[serverFault[code]]; line["level"] != want {
				t.Errorf("%s with %v: level %v, want %s", kind.name, result, line["level"], want)
			}
		}
	}
}

// uncomparable is an error that must not be compared with ==.
type uncomparable []string

func (uncomparable) Error() string { return "uncomparable" }

func TestLogMetadata(t *testing.T) {
	long, names := strings.Repeat("x", 1<<20), ttrpc.MD{}
	for i := range 65 {
		names.Set(strconv.Itoa(i), "")
	}
	for name, test := range map[string]struct {
		sent ttrpc.MD
		want any // nil: no attribute
	}{
		"none":    {nil, nil},
		"empty":   {ttrpc.MD{}, nil},
		"one":     {ttrpc.MD{"name": {"koye"}}, map[string]any{"name": []any{"koye"}}},
		"several": {ttrpc.MD{"a": {"1", "2"}, "b": {"<"}}, map[string]any{"a": []any{"1", "2"}, "b": []any{"<"}}},
		"credentials": {
			ttrpc.MD{"Authorization": {"me"}, "cookie": {"me"}, "proxy-authorization": {"me", "me"}},
			map[string]any{
				"Authorization": []any{"REDACTED"}, "cookie": []any{"REDACTED"},
				"proxy-authorization": []any{"REDACTED", "REDACTED"},
			},
		},
		"long":  {ttrpc.MD{"k": {long}, "l": {"1"}}, "2 values under 2 names"},
		"many":  {ttrpc.MD{"k": make([]string, 200_000)}, "200000 values under 1 names"},
		"names": {names, "65 values under 65 names"},
	} {
		t.Run(name, func(t *testing.T) {
			var server, client logBuffer
			c, _ := serve(t, interceptor.Log(interceptor.LogOptions{Logger: server.logger()}), service{
				unary: func(ctx context.Context, _ *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
					if md, ok := ttrpc.GetMetadata(ctx); ok {
						if _, ok := md.Get("name"); ok {
							md["name"][0] = "changed by the handler" // must not be logged
						}
						md.Set("more", "added by the handler")
					}
					return &testv1.UnaryResponse{}, nil
				},
			}, ttrpc.WithUnaryClientInterceptor(interceptor.ClientLog(client.logger())))

			sent := test.sent.Clone()
			if err := kinds[0].call(ttrpc.WithMetadata(t.Context(), test.sent), c); err != nil {
				t.Fatal(err)
			}
			for logger, line := range map[string]map[string]any{"server": server.one(t), "client": client.one(t)} {
				if got, want := fmt.Sprint(line["metadata"]), fmt.Sprint(test.want); got != want {
					t.Errorf("the %s logged %s, want %s", logger, got, want)
				}
			}
			if !maps.EqualFunc(test.sent, sent, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("the caller's metadata became %v", test.sent)
			}
		})
	}
}

// slog's text handler uses the method String of the metadata.
func TestLogMetadataAsText(t *testing.T) {
	var lines logBuffer
	logger := slog.New(slog.NewTextHandler(&lines, nil))
	client, _ := serve(t, interceptor.Log(interceptor.LogOptions{Logger: logger}), service{})
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"name": {"koye"}, "cmp": {"<&>"}})
	if err := kinds[0].call(ctx, client); err != nil {
		t.Fatal(err)
	}
	if want := `metadata="{\"cmp\":[\"<&>\"],\"name\":[\"koye\"]}"`; !strings.Contains(lines.b.String(), want) {
		t.Errorf("no %s in %s", want, &lines.b)
	}
}

func TestLogBoundsErrorText(t *testing.T) {
	var lines logBuffer
	chain := interceptor.Log(interceptor.LogOptions{Logger: lines.logger()})
	client, _ := serve(t, chain, all(func(context.Context) error {
		return status.Error(codes.NotFound, strings.Repeat("é", 1<<16))
	}))
	if err := kinds[0].call(t.Context(), client); codeOf(err) != "NotFound" {
		t.Fatal(err)
	}
	if got, want := lines.one(t)["error"], strings.Repeat("é", 512)+"... (131072 bytes)"; got != want {
		t.Errorf("error is %v", got)
	}
}

// A level that is off costs nothing: no line, no wrapped stream, no call of Peer.
func TestLogDisabled(t *testing.T) {
	errorsOnly := &logBuffer{}
	for name, test := range map[string]struct {
		logger  *slog.Logger
		through bool
	}{
		"discard":     {slog.New(slog.DiscardHandler), true},
		"errors only": {slog.New(slog.NewJSONHandler(errorsOnly, &slog.HandlerOptions{Level: slog.LevelError})), false},
	} {
		t.Run(name, func(t *testing.T) {
			log := interceptor.Log(interceptor.LogOptions{Logger: test.logger, Peer: func(context.Context) slog.Attr {
				t.Error("Peer was called")
				return slog.Attr{}
			}})
			var stream noStream
			resp, err := log(t.Context(), &stream, &ttrpc.StreamServerInfo{},
				func(_ context.Context, s ttrpc.StreamServer) (any, error) {
					if through := s == ttrpc.StreamServer(&stream); through != test.through {
						t.Errorf("stream passed through: %v", through)
					}
					return "response", nil
				})
			if resp != "response" || err != nil {
				t.Errorf("got %v, %v", resp, err)
			}
			called := false
			err = interceptor.ClientLog(test.logger)(t.Context(), &ttrpc.Request{}, &ttrpc.Response{},
				&ttrpc.UnaryClientInfo{}, func(context.Context, *ttrpc.Request, *ttrpc.Response) error {
					called = true
					return nil
				})
			if !called || err != nil {
				t.Errorf("client: called %v, %v", called, err)
			}
		})
	}
	if lines := errorsOnly.take(t); lines != nil {
		t.Errorf("logged %v", lines)
	}
}

type noStream struct{ ttrpc.StreamServer }

func TestLogDefaultLogger(t *testing.T) {
	var lines logBuffer
	old := slog.Default()
	slog.SetDefault(lines.logger())
	t.Cleanup(func() { slog.SetDefault(old) })
	chain := interceptor.Log(interceptor.LogOptions{})
	client, _ := serve(t, chain, service{}, ttrpc.WithUnaryClientInterceptor(interceptor.ClientLog(nil)))
	if err := kinds[0].call(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if lines := lines.take(t); len(lines) != 2 {
		t.Errorf("logged %v", lines)
	}
}

func TestClientLog(t *testing.T) {
	var lines logBuffer
	var result error
	canceled, cancel := context.WithCancel(t.Context())
	end := make(chan struct{})
	client, stop := serve(t, interceptor.Chain(), all(func(context.Context) error {
		if errors.Is(result, context.Canceled) {
			cancel()
			<-end // the client might get an answer before it sees the cancellation
		}
		return result
	}), ttrpc.WithUnaryClientInterceptor(interceptor.ClientLog(lines.logger())))
	line := func(level, code string) map[string]any {
		return map[string]any{
			"level": level, "msg": "call made", "method": "/test.v1.Test/Unary", "code": code,
		}
	}
	failed := func(level, code, err string) map[string]any {
		l := line(level, code)
		l["error"] = err
		return l
	}
	for _, test := range []struct {
		name   string
		ctx    context.Context
		result error
		want   map[string]any
	}{
		{"ok", t.Context(), nil, line("INFO", "OK")},
		{"fault of the caller", t.Context(), status.Error(codes.NotFound, "none"), failed("INFO", "NotFound", "none")},
		{"fault of the server", t.Context(), errors.New("oops"), failed("ERROR", "Unknown", "oops")},
		{"canceled", canceled, context.Canceled, failed("INFO", "Canceled", "context canceled")},
	} {
		t.Run(test.name, func(t *testing.T) {
			result = test.result
			err := kinds[0].call(test.ctx, client)
			if (err == nil) != (test.want["error"] == nil) {
				t.Errorf("got %v", err)
			}
			diff(t, lines.one(t), test.want)
		})
	}
	close(end)
	stop()
	if err := kinds[0].call(t.Context(), client); !errors.Is(err, ttrpc.ErrClosed) {
		t.Fatal(err)
	}
	diff(t, lines.one(t), failed("ERROR", "Unavailable", "ttrpc: closed"))
}
