package loglimit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		ctx, limiter := t.Context(), loglimit.New(slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == "i" {
					return slog.Attr{}
				}
				return a
			},
		})), 5)
		repeat := func(n int, message string) {
			for i := range n {
				limiter.Log(ctx, slog.LevelError, message, "i", i)
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

		time.Sleep(time.Nanosecond) // the minute is over: the first line of any message brings the number
		repeat(1, "trickle")
		want(map[string]int{trickle: 1, held("flood", 996): 1})
		repeat(7, "flood")
		want(map[string]int{flood: 5})

		time.Sleep(time.Hour)
		repeat(1, "trickle")
		want(map[string]int{trickle: 1, held("flood", 2): 1})

		// Messages that are all different must not fill the memory, nor the log.
		time.Sleep(time.Hour)
		for i := range 10_000 {
			repeat(1, strconv.Itoa(i))
		}
		if got := len(took()); got != 64+5 {
			t.Errorf("%d lines of different messages, want 69", got)
		}
		limiter.Flush(ctx)
		want(map[string]int{held(`"other messages"`, 9931): 1})
		limiter.Flush(ctx)
		want(map[string]int{})

		// Levels that are not enabled neither come out nor count.
		for range 10 {
			limiter.Log(ctx, slog.LevelDebug, "flood")
		}
		repeat(5, "flood")
		want(map[string]int{flood: 5})
	})
}

func TestLimiterDefaultLogger(t *testing.T) {
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	var lines bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&lines, nil)))
	loglimit.New(nil, 1).Log(context.Background(), slog.LevelInfo, "seen")
	if !strings.Contains(lines.String(), "msg=seen") {
		t.Errorf("got %q", &lines)
	}
}
