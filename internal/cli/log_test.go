package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"example.com/ttrpc-starter/internal/cli"
)

// newLogger returns the logger of a server with that -log-format.
func newLogger(t *testing.T, format string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	out := new(bytes.Buffer)
	options, err := cli.ParseServer(cli.NewFlagSet("server", ""), []string{"-log-format", format}, io.Discard, out)
	if err != nil {
		t.Fatal(err)
	}
	return options.Logger, out
}

// hostile is a byte that is not UTF-8, a C1 control that starts a terminal's command, and a mark that turns the text
// around.
const hostile = "\x80\u009b\u202e"

func TestTextLog(t *testing.T) {
	log, out := newLogger(t, "text")
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { log.Info("server start") }, "INFO  server start"},
		{func() { log.Error("it broke", "error", errors.New("no room")) }, `ERROR it broke error="no room"`},
		{func() { log.Debug("details") }, ""},
		{
			func() { log.Info("call", "metadata", map[string][]string{"name": {"koye"}}) },
			`INFO  call metadata={"name":["koye"]}`,
		},
		{
			func() { log.Info("call", "took", 1500*time.Microsecond, "n", 3, "ok", true) },
			"INFO  call took=1.5ms n=3 ok=true",
		},
		{
			func() { log.Info("call", "empty", "", "quote", `a"b`, "equals", "a=b") },
			`INFO  call empty="" quote="a\"b" equals="a=b"`,
		},
		{func() { log.Info("call", slog.Group("peer", "uid", 0, "pid", 7)) }, "INFO  call peer.uid=0 peer.pid=7"},
		{func() { log.Info("call", slog.Attr{}, slog.Group("none")) }, "INFO  call"},
		{func() { log.With("a", 1).WithGroup("g").With("b", 2).Info("call", "c", 3) }, "INFO  call a=1 g.b=2 g.c=3"},
		{func() { log.Info("two\nlines", "k", "more\nlines") }, `INFO  "two\nlines" k="more\nlines"`},
		{
			func() { log.Info(hostile, hostile, hostile) },
			`INFO  "\x80\u009b\u202e" "\x80\u009b\u202e"="\x80\u009b\u202e"`,
		},
		{
			func() {
				log.WithGroup("a\nb").Info("call", "c=d", map[string]string{hostile: hostile + "\U000e0001\n"})
			},
			`INFO  call "a\nb.c=d"={"\ufffd\u009b\u202e":"\ufffd\u009b\u202e\udb40\udc01\n"}`,
		},
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
		want := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} ` + regexp.QuoteMeta(c.want) + "\n$")
		if !want.MatchString(got) {
			t.Errorf("the line is %q, want a time and %q", got, c.want)
		}
	}
}

func TestJSONLog(t *testing.T) {
	log, out := newLogger(t, "json")
	log.Info("call", "metadata", map[string][]string{"name": {"koye"}})
	if want := `"msg":"call","metadata":{"name":["koye"]}}` + "\n"; !bytes.HasSuffix(out.Bytes(), []byte(want)) {
		t.Errorf("the line is %q, want %q at its end", out, want)
	}
}

// TestJSONLogEscapes checks that the line shows nothing to a terminal that it should not, and says the same as before.
func TestJSONLogEscapes(t *testing.T) {
	log, out := newLogger(t, "json")
	log.Info(hostile, hostile, hostile+"\U000e0001\u2028")
	const escaped = `\ufffd\u009b\u202e`
	want := `"msg":"` + escaped + `","` + escaped + `":"` + escaped + `\udb40\udc01\u2028"}` + "\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("the line is %q, want %q at its end", out, want)
	}
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "\ufffd\u009b\u202e" {
		t.Errorf("the line says %q, %v", line["msg"], err)
	}
}

// TestTextHandler runs slog's own checks of handlers.
func TestTextHandler(t *testing.T) {
	var out *bytes.Buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		var log *slog.Logger
		log, out = newLogger(t, "text")
		return log.Handler()
	}, func(t *testing.T) map[string]any { return parseLine(t, out.String()) })
}

// parseLine parses a line of the text log for slogtest.
func parseLine(t *testing.T, line string) map[string]any {
	t.Helper()
	m := map[string]any{}
	fields := strings.Fields(line)
	if len(fields) > 0 && strings.Count(fields[0], ":") == 2 {
		m[slog.TimeKey], fields = fields[0], fields[1:]
	}
	m[slog.LevelKey], m[slog.MessageKey], fields = fields[0], fields[1], fields[2:]
	for _, field := range fields {
		path, value, ok := strings.Cut(field, "=")
		if !ok {
			t.Fatalf("%q is not an attribute", field)
		}
		group, keys := m, strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			inner, ok := group[key].(map[string]any)
			if !ok {
				inner = map[string]any{}
				group[key] = inner
			}
			group = inner
		}
		group[keys[len(keys)-1]] = value
	}
	return m
}
