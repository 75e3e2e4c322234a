// Package loglimit limits repeated log lines, so that a peer that causes many of them cannot fill the log.
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

	// maxMessages bounds the number of messages that are counted, and so the memory. Further messages share one count.
	maxMessages = 64
	otherwise   = "other messages"
)

// Handler is a slog.Handler that passes records to another handler: in each minute, only the first few records with the
// same message. It logs how many were held back when the first record after that minute arrives, or at Flush. So put
// values that change into attributes and not into the message. It needs no goroutine.
type Handler struct {
	slog.Handler
	counts *counts // shared with the handlers that WithAttrs and WithGroup return
}

// counts has the number of records of each message in the current minute.
type counts struct {
	root  slog.Handler // gets the lines that say how many records were held back
	burst int

	mu    sync.Mutex
	end   time.Time // of the minute
	lines map[string]int
}

// New returns a handler that passes at most burst records with the same message to h in a minute.
func New(h slog.Handler, burst int) Handler {
	return Handler{h, &counts{root: h, burst: burst}}
}

// Handle passes the record to the other handler, or holds it back and counts it.
func (h Handler) Handle(ctx context.Context, r slog.Record) error {
	admitted, ended := h.counts.add(r.Message)
	if err := h.counts.report(ctx, ended); err != nil || !admitted {
		return err
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes and shares the counts.
func (h Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return Handler{h.Handler.WithAttrs(attrs), h.counts}
}

// WithGroup returns a handler that opens a group and shares the counts.
func (h Handler) WithGroup(name string) slog.Handler {
	return Handler{h.Handler.WithGroup(name), h.counts}
}

// Flush logs how many records were held back, and starts a new minute.
func (h Handler) Flush(ctx context.Context) error {
	h.counts.mu.Lock()
	ended := h.counts.lines
	h.counts.lines, h.counts.end = nil, time.Time{}
	h.counts.mu.Unlock()
	return h.counts.report(ctx, ended)
}

// add counts a record. If the record is the first one of a new minute, ended has the counts of the minute before.
func (c *counts) add(message string) (admitted bool, ended map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); !now.Before(c.end) {
		ended = c.lines
		c.lines, c.end = make(map[string]int), now.Add(period)
	}
	if _, known := c.lines[message]; !known && len(c.lines) >= maxMessages {
		message = otherwise
	}
	c.lines[message]++
	return c.lines[message] <= c.burst, ended
}

func (c *counts) report(ctx context.Context, lines map[string]int) error {
	for _, message := range slices.Sorted(maps.Keys(lines)) {
		held := lines[message] - c.burst
		if held <= 0 || !c.root.Enabled(ctx, slog.LevelWarn) {
			continue
		}
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "repeated log lines held back", 0)
		r.AddAttrs(slog.String("message", message), slog.Int("lines", held))
		if err := c.root.Handle(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
