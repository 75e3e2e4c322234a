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

// containerdBurst is how many lines with one message are logged in a minute. ttrpc has about ten messages.
const containerdBurst = 5

// ContainerdLog sends the lines that ttrpc logs to logger (nil: slog.Default()). Otherwise ttrpc writes them to the
// standard error in a format of its own. ContainerdLog changes the logger of github.com/containerd/log for the whole
// process. So call it in main, before the first server or client starts. A second call replaces the first.
//
// A peer can make ttrpc log as often as it likes. So only five lines with the same message are logged in a minute, and
// then one with the number of lines that were held back.
func ContainerdLog(logger *slog.Logger) {
	// A hook would get each line, too. But hooks add up when this is called twice, and the line would still be
	// formatted.
	log.L.Logger.SetFormatter(containerdLog{slog.New(loglimit.New(orDefault(logger).Handler(), containerdBurst))})
	log.L.Logger.SetOutput(io.Discard)
}

// containerdLog is a formatter that passes each line to slog, and returns no bytes to write.
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
