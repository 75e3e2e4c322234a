package interceptor

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/containerd/log"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
)

// containerdBurst is how many lines of one message come out in a minute. ttrpc has about ten messages.
const containerdBurst = 5

// ContainerdLog sends to logger (nil: slog.Default()) what ttrpc logs, which otherwise goes to the standard error in a
// format of its own. It takes over the logger of github.com/containerd/log for the whole process, so it is for main to
// call, before the first server or client starts. A second call replaces the first.
//
// A peer can make ttrpc log as often as it likes, so of each message five lines come out in a minute, and then how many
// were held back.
func ContainerdLog(logger *slog.Logger) {
	// A formatter sees each line, as a hook does, but there is only one: none doubles, and none formats for nobody.
	log.L.Logger.SetFormatter(containerdLog{slog.New(loglimit.New(orDefault(logger).Handler(), containerdBurst))})
	log.L.Logger.SetOutput(io.Discard)
}

// containerdLog is a formatter that passes lines on and leaves nothing to write.
type containerdLog struct{ lines *slog.Logger }

func (l containerdLog) Format(entry *log.Entry) ([]byte, error) {
	ctx := entry.Context
	if ctx == nil {
		ctx = context.Background()
	}
	attrs := make([]any, 0, len(entry.Data))
	for _, name := range slices.Sorted(maps.Keys(entry.Data)) {
		attrs = append(attrs, slog.Any(name, entry.Data[name]))
	}
	l.lines.Log(ctx, slogLevel(entry.Level), entry.Message, attrs...)
	return nil, nil
}

func slogLevel(level log.Level) slog.Level {
	switch level {
	case log.TraceLevel, log.DebugLevel:
		return slog.LevelDebug
	case log.InfoLevel:
		return slog.LevelInfo
	case log.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}
