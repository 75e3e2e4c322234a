package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// textHandler writes lines for people: the message without quotes, and maps and lists as JSON. slog.TextHandler quotes
// both, so a call's metadata is hard to read: metadata="{\"name\":[\"koye\"]}".
type textHandler struct {
	w      io.Writer
	mu     *sync.Mutex // held during a write; shared with the handlers of WithAttrs and WithGroup
	attrs  string      // those of WithAttrs, formatted
	prefix string      // the open groups, each with a dot
}

func newTextHandler(w io.Writer) *textHandler { return &textHandler{w: w, mu: new(sync.Mutex)} }

func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.prefix += name + "."
	return &with
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b bytes.Buffer
	for _, a := range attrs {
		appendAttr(&b, h.prefix, a)
	}
	with := *h
	with.attrs += b.String()
	return &with
}

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	if !r.Time.IsZero() {
		b.WriteString(r.Time.Format("15:04:05.000 "))
	}
	fmt.Fprintf(&b, "%-5s %s", r.Level, oneLine(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(b.Bytes())
	return err
}

func appendAttr(b *bytes.Buffer, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, a := range v.Group() {
			appendAttr(b, prefix, a)
		}
		return
	}
	b.WriteByte(' ')
	b.WriteString(quoted(prefix + a.Key))
	b.WriteByte('=')
	b.WriteString(valueText(v))
}

// valueText returns v as JSON if it is a list or a map, and otherwise as text.
func valueText(v slog.Value) string {
	if v.Kind() == slog.KindAny {
		switch reflect.ValueOf(v.Any()).Kind() {
		case reflect.Map, reflect.Slice:
			if b, err := json.Marshal(v.Any()); err == nil {
				return string(PrintableJSON(b))
			}
		}
	}
	return quoted(v.String())
}

// quoted returns s in quotes if it could look like more than one word, or is not printable.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, ` "=`) || !isPrintable(s) {
		return strconv.Quote(s)
	}
	return s
}

// oneLine quotes a text that is not printable.
func oneLine(s string) string {
	if !isPrintable(s) {
		return strconv.Quote(s)
	}
	return s
}
