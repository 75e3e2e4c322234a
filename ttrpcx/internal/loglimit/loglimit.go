// Package loglimit limits repeated log lines, so that a peer that causes many of them cannot fill the log.
package loglimit

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	period = time.Minute

	// maxKinds bounds the number of kinds that are counted, and so the memory. Further kinds share one count.
	maxKinds = 64
)

var otherwise = kind{message: "other messages"}

// kind is what records have in common that are counted together: the message and the attribute "code", if there is one.
type kind struct{ message, code string }

// Handler is a slog.Handler that passes records to another handler: in each minute, only the first few records of the
// same kind. It logs how many were held back when the first record after that minute arrives, or at Flush. So put
// values that change into attributes and not into the message. It needs no goroutine.
type Handler struct {
	slog.Handler
	counts *counts // shared with the handlers that WithAttrs and WithGroup return
}

// counts has the number of records of each kind in the current minute.
type counts struct {
	root  slog.Handler // gets the lines that say how many records were held back
	burst int

	mu    sync.Mutex
	end   time.Time // of the minute
	lines map[kind]int
}

// New returns a handler that passes at most burst records of the same kind to h in a minute. If h has a limit already,
// the new one takes its place.
func New(h slog.Handler, burst int) Handler {
	if limited, ok := h.(Handler); ok {
		h = limited.Handler
	}
	return Handler{h, &counts{root: h, burst: burst}}
}

// Admit counts a record and returns the handler to pass it to, or nil if it is held back. It is for callers for whom it
// costs something to make the record. h may be any handler: one without a limit admits all.
func Admit(ctx context.Context, h slog.Handler, message, code string) (slog.Handler, error) {
	limited, ok := h.(Handler)
	if !ok {
		return h, nil
	}
	admitted, ended := limited.counts.add(kind{message, code})
	if err := limited.counts.report(ctx, ended); err != nil || !admitted {
		return nil, err
	}
	return limited.Handler, nil
}

// Handle passes the record to the other handler, or holds it back and counts it.
func (h Handler) Handle(ctx context.Context, r slog.Record) error {
	code := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "code" {
			code = a.Value.String()
		}
		return code == ""
	})
	to, err := Admit(ctx, h, r.Message, code)
	if to == nil {
		return err
	}
	return to.Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes and shares the counts.
func (h Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return Handler{h.Handler.WithAttrs(attrs), h.counts}
}

// WithGroup returns a handler that opens a group and shares the counts.
func (h Handler) WithGroup(name string) slog.Handler {
	return Handler{h.Handler.WithGroup(name), h.counts}
}

// Flush logs how many records h held back, and starts a new minute. It does nothing if h has no limit.
func Flush(ctx context.Context, h slog.Handler) error {
	limited, ok := h.(Handler)
	if !ok {
		return nil
	}
	c := limited.counts
	c.mu.Lock()
	ended := c.lines
	c.lines, c.end = nil, time.Time{}
	c.mu.Unlock()
	return c.report(ctx, ended)
}

// add counts a record. If the record is the first one of a new minute, ended has the counts of the minute before.
func (c *counts) add(k kind) (admitted bool, ended map[kind]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); !now.Before(c.end) {
		ended = c.lines
		c.lines, c.end = make(map[kind]int), now.Add(period)
	}
	if _, known := c.lines[k]; !known && len(c.lines) >= maxKinds {
		k = otherwise
	}
	c.lines[k]++
	return c.lines[k] <= c.burst, ended
}

func (k kind) compare(other kind) int {
	return cmp.Or(cmp.Compare(k.message, other.message), cmp.Compare(k.code, other.code))
}

func (c *counts) report(ctx context.Context, lines map[kind]int) error {
	for _, k := range slices.SortedFunc(maps.Keys(lines), kind.compare) {
		held := lines[k] - c.burst
		if held <= 0 || !c.root.Enabled(ctx, slog.LevelWarn) {
			continue
		}
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "repeated log lines held back", 0)
		r.AddAttrs(slog.String("message", k.message))
		if k.code != "" {
			r.AddAttrs(slog.String("code", k.code))
		}
		r.AddAttrs(slog.Int("lines", held))
		if err := c.root.Handle(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
