package interceptor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/containerd/log"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// restoreLog undoes at the end of the test what ContainerdLog does to the process.
func restoreLog(t *testing.T) {
	logger := log.L.Logger
	out, formatter := logger.Out, logger.Formatter
	t.Cleanup(func() {
		logger.SetOutput(out)
		logger.SetFormatter(formatter)
	})
}

// ours is a logger whose lines takeOurs tells from those of ttrpc, which other tests' connections write even after
// these tests' end: the logger is the process's.
func ours() *log.Entry { return log.L.WithField("ours", true) }

func takeOurs(t *testing.T, lines *logBuffer) []map[string]any {
	t.Helper()
	var taken []map[string]any
	for _, line := range lines.take(t) {
		if line["ours"] != nil {
			delete(line, "ours")
			taken = append(taken, line)
		}
	}
	return taken
}

func TestContainerdLog(t *testing.T) {
	restoreLog(t)
	var unused, lines logBuffer
	interceptor.ContainerdLog(unused.logger())
	interceptor.ContainerdLog(lines.logger())

	log.G(log.WithLogger(t.Context(), ours())).WithError(errors.New("oops")).WithField("stream", 3).Error("it broke")
	ours().Warn("careful")
	ours().Infof("all is %s", "well")
	ours().Debug("not enabled")
	want := `[map[error:oops level:ERROR msg:it broke stream:3] ` +
		`map[level:WARN msg:careful] map[level:INFO msg:all is well]]`
	if got := fmt.Sprint(takeOurs(t, &lines)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if lines := takeOurs(t, &unused); lines != nil {
		t.Errorf("the replaced logger got %v", lines)
	}
}

func TestContainerdLogLevels(t *testing.T) {
	restoreLog(t)
	level := log.GetLevel()
	t.Cleanup(func() { _ = log.SetLevel(level.String()) })
	if err := log.SetLevel("trace"); err != nil {
		t.Fatal(err)
	}
	var lines logBuffer
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	slog.SetDefault(slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug})))
	interceptor.ContainerdLog(nil)

	ours().Trace("a")
	ours().Debug("b")
	func() {
		defer func() { _ = recover() }()
		ours().Panic("c")
	}()
	want := `[map[level:DEBUG msg:a] map[level:DEBUG msg:b] map[level:ERROR msg:c]]`
	if got := fmt.Sprint(takeOurs(t, &lines)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

// How the Limiter counts is loglimit's test; here, that it stands in the way.
func TestContainerdLogIsLimited(t *testing.T) {
	restoreLog(t)
	var lines logBuffer
	interceptor.ContainerdLog(lines.logger())
	for range 1000 {
		ours().Error("flood")
	}
	// A minute may end between two lines, and then the count begins anew.
	if got := len(takeOurs(t, &lines)); got < 5 || got > 10 {
		t.Errorf("%d lines of 1000, want 5", got)
	}
}

// A line of ttrpc's own: the server speaks of a stream that the client never opened.
func TestContainerdLogOfTTRPC(t *testing.T) {
	restoreLog(t)
	logged := make(chan struct{})
	interceptor.ContainerdLog(slog.New(slog.NewJSONHandler(awaited{
		`"msg":"ttrpc: received message on inactive stream","stream":1}`, sync.OnceFunc(func() { close(logged) }),
	}, nil)))

	blocked := make(chan struct{})
	client, _ := serve(t, interceptor.Chain(), all(func(context.Context) error {
		<-blocked
		return nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := kinds[0].call(ctx, client); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(blocked) // the answer to a call that the client has given up
	<-logged
}

// awaited calls found for each line that holds text.
type awaited struct {
	text  string
	found func()
}

func (w awaited) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.found()
	}
	return len(p), nil
}
