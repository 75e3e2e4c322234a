package cli_test

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/cli"
)

func logger(t *testing.T, format string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var f cli.LogFormat
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	f.Register(flags)
	if err := flags.Parse([]string{"-log-format", format}); err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	return f.Logger(out), out
}

func TestTextLog(t *testing.T) {
	log, out := logger(t, "text")
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Info("server start") }, "INFO  server start"},
		{func() { log.Error("it broke", "error", errors.New("no room")) }, `ERROR it broke error="no room"`},
		{func() { log.Debug("details") }, ""},
		{func() { log.Info("call", "metadata", map[string][]string{"name": {"koye"}}) }, `INFO  call metadata={"name":["koye"]}`},
		{func() { log.Info("call", "took", 1500*time.Microsecond, "n", 3, "ok", true) }, "INFO  call took=1.5ms n=3 ok=true"},
		{func() { log.Info("call", "empty", "", "quote", `a"b`, "equals", "a=b") }, `INFO  call empty="" quote="a\"b" equals="a=b"`},
		{func() { log.Info("call", slog.Group("peer", "uid", 0, "pid", 7)) }, "INFO  call peer.uid=0 peer.pid=7"},
		{func() { log.Info("call", slog.Attr{}, slog.Group("none")) }, "INFO  call"},
		{func() { log.With("a", 1).WithGroup("g").With("b", 2).Info("call", "c", 3) }, "INFO  call a=1 g.b=2 g.c=3"},
		{func() { log.Info("two\nlines", "k", "more\nlines") }, `INFO  "two\nlines" k="more\nlines"`},
	} {
		out.Reset()
		c.write()
		got := out.String()
		if c.want == "" {
			if got != "" {
				t.Errorf("%q was logged, want nothing", got)
			}
			continue
		}
		if want := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} ` + regexp.QuoteMeta(c.want) + "\n$"); !want.MatchString(got) {
			t.Errorf("the line is %q, want a time and %q", got, c.want)
		}
	}
}

func TestJSONLog(t *testing.T) {
	log, out := logger(t, "json")
	log.Info("call", "metadata", map[string][]string{"name": {"koye"}})
	if want := `"msg":"call","metadata":{"name":["koye"]}}` + "\n"; !bytes.HasSuffix(out.Bytes(), []byte(want)) {
		t.Errorf("the line is %q, want %q at its end", out, want)
	}
}
