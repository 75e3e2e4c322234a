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

// restoreLog restores the process's logger at the end of the test.
func restoreLog(t *testing.T) {
	logger := log.L.Logger
	out, formatter := logger.Out, logger.Formatter
	t.Cleanup(func() {
		logger.SetOutput(out)
		logger.SetFormatter(formatter)
	})
}

// ours is a logger whose lines have an attribute, by which takeOurs finds them. The logger belongs to the process, and
// the connections of other tests may still log to it.
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

// The tests of package loglimit check how lines are counted. This one checks that the limit is in use.
func TestContainerdLogIsLimited(t *testing.T) {
	restoreLog(t)
	var lines logBuffer
	interceptor.ContainerdLog(lines.logger())
	for range 1000 {
		ours().Error("flood")
	}
	// If a minute ends during the loop, the count starts again.
	if got := len(takeOurs(t, &lines)); got < 5 || got > 10 {
		t.Errorf("%d lines of 1000, want 5", got)
	}
}

// A line that ttrpc itself logs: the client gets an answer to a call that it has cancelled.
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
	close(blocked) // the server answers now
	<-logged
}

// awaited calls found for each line that contains text.
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
