package loglimit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		ctx, limiter := t.Context(), loglimit.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == "i" {
					return slog.Attr{}
				}
				return a
			},
		}), 5)
		log := slog.New(limiter)
		repeat := func(n int, message string) {
			for i := range n {
				log.Log(ctx, slog.LevelError, message, "i", i)
			}
		}
		took := func() map[string]int {
			got := make(map[string]int)
			for line := range strings.Lines(lines.String()) {
				got[strings.TrimSpace(line)]++
			}
			lines.Reset()
			return got
		}
		want := func(want map[string]int) {
			t.Helper()
			if got := took(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		held := func(message string, n int) string {
			return fmt.Sprintf(`level=WARN msg="repeated log lines held back" message=%s lines=%d`, message, n)
		}
		const flood, trickle = "level=ERROR msg=flood", "level=ERROR msg=trickle"

		repeat(1000, "flood")
		repeat(3, "trickle")
		want(map[string]int{flood: 5, trickle: 3})

		time.Sleep(time.Minute - 1)
		repeat(1, "flood")
		want(map[string]int{})

		time.Sleep(time.Nanosecond) // now the minute is over, and the next line brings the number of held lines
		repeat(1, "trickle")
		want(map[string]int{trickle: 1, held("flood", 996): 1})
		repeat(7, "flood")
		want(map[string]int{flood: 5})

		time.Sleep(time.Hour)
		repeat(1, "trickle")
		want(map[string]int{trickle: 1, held("flood", 2): 1})

		// Many different messages must not fill the memory or the log.
		time.Sleep(time.Hour)
		for i := range 10_000 {
			repeat(1, strconv.Itoa(i))
		}
		if got := len(took()); got != 64+5 {
			t.Errorf("%d lines of different messages, want 69", got)
		}
		_ = loglimit.Flush(ctx, limiter)
		want(map[string]int{held(`"other messages"`, 9931): 1})
		_ = loglimit.Flush(ctx, limiter)
		want(map[string]int{})

		// Records with a level that is not enabled are not logged and not counted.
		for range 10 {
			log.Log(ctx, slog.LevelDebug, "flood")
		}
		repeat(5, "flood")
		want(map[string]int{flood: 5})
	})
}

// TestHandler runs slog's own checks of handlers.
func TestHandler(t *testing.T) {
	var lines bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		lines.Reset()
		return loglimit.New(slog.NewJSONHandler(&lines, nil), 1)
	}, func(t *testing.T) map[string]any {
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	})
}

// TestCodes checks that records with another code are of another kind, and that a limit takes the place of another.
func TestCodes(t *testing.T) {
	var lines bytes.Buffer
	limiter := loglimit.New(loglimit.New(slog.NewTextHandler(&lines, nil), 1), 2)
	log := slog.New(limiter)
	for i := range 5 {
		log.Info("call", "i", i, "code", "OK")
	}
	log.Info("call", "code", "Internal")
	if err := loglimit.Flush(t.Context(), limiter); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"msg=call i=": 2, "msg=call code=Internal": 1, "message=call code=OK lines=3": 1, "\n": 4,
	} {
		if got := strings.Count(lines.String(), text); got != want {
			t.Errorf("%d lines with %q, want %d:\n%s", got, text, want, &lines)
		}
	}
}

// TestSharedCounts checks that derived loggers share the counts.
func TestSharedCounts(t *testing.T) {
	var lines bytes.Buffer
	log := slog.New(loglimit.New(slog.NewTextHandler(&lines, nil), 2))
	for i := range 5 {
		log.With("i", i).WithGroup("g").Info("flood")
	}
	if got := strings.Count(lines.String(), "msg=flood"); got != 2 {
		t.Errorf("%d lines, want 2", got)
	}
}
