// Package loglimit keeps those who can bring about log lines at will from flooding the log.
package loglimit

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	period = time.Minute

	// maxMessages bounds how many messages are counted, and so the memory; all further ones share one count.
	maxMessages = 64
	otherwise   = "other messages"
)

// Limiter passes lines on to a logger, of those with one message only the first few in a minute. How many were held back
// comes out with the first line of any message after that minute, or with Flush. It needs no goroutine.
type Limiter struct {
	logger *slog.Logger
	burst  int

	mu    sync.Mutex
	end   time.Time      // of the minute
	lines map[string]int // in the minute, by message
}

// New returns a Limiter that lets burst lines of one message out in a minute. A nil logger is slog.Default().
func New(logger *slog.Logger, burst int) *Limiter {
	if logger == nil {
		logger = slog.Default()
	}
	return &Limiter{logger: logger, burst: burst}
}

// Log logs one line, as slog.Logger.Log does. What differs from line to line belongs into attrs.
func (l *Limiter) Log(ctx context.Context, level slog.Level, message string, attrs ...any) {
	if !l.logger.Enabled(ctx, level) {
		return
	}
	l.mu.Lock()
	var ended map[string]int
	if now := time.Now(); !now.Before(l.end) {
		ended = l.lines
		l.lines, l.end = make(map[string]int), now.Add(period)
	}
	counted := message
	if _, known := l.lines[message]; !known && len(l.lines) >= maxMessages {
		counted = otherwise
	}
	l.lines[counted]++
	admitted := l.lines[counted] <= l.burst
	l.mu.Unlock()

	l.report(ctx, ended)
	if admitted {
		l.logger.Log(ctx, level, message, attrs...)
	}
}

// Flush logs how many lines have been held back and begins anew.
func (l *Limiter) Flush(ctx context.Context) {
	l.mu.Lock()
	ended := l.lines
	l.lines, l.end = nil, time.Time{}
	l.mu.Unlock()
	l.report(ctx, ended)
}

func (l *Limiter) report(ctx context.Context, lines map[string]int) {
	for _, message := range slices.Sorted(maps.Keys(lines)) {
		if held := lines[message] - l.burst; held > 0 {
			l.logger.Log(ctx, slog.LevelWarn, "repeated log lines held back", "message", message, "lines", held)
		}
	}
}
