package ui_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"example.com/ttrpc-starter/internal/proctest"
)

var screenshot = flag.String("screenshot", "", "write a picture of the page after a call to this `file`")

// patience is for all that a test does in the browser, on a machine that may be slow and shared.
const patience = 5 * time.Minute

// browser starts a headless Chromium with a profile of its own.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := proctest.Program(t, "chromium", "chromium-browser", "google-chrome")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(patience), // rather than 20 s
		chromedp.WindowSize(1200, 900),
		chromedp.NoSandbox, // as it must be for root; the only page is our own
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func read[T any](ctx context.Context, t *testing.T, action chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// ready is when grpcui has the schema of the method.
const ready = chromedp.CSS("#grpc-request-tab .grpc-invoke:enabled")

// choose chooses a method in the form.
func choose(method string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.Evaluate[chromedp.Void](`void $("#grpc-method").val("`+method+`").trigger("change")`),
		chromedp.WaitReady(ready),
	)
}

// enter replaces the request by one in JSON.
func enter(request string) chromedp.Action[chromedp.Void] {
	const text = chromedp.CSS("#grpc-request-raw-text")
	return chromedp.Steps(
		chromedp.Click(chromedp.CSS(`a[href="#grpc-request-raw-tab"]`)),
		chromedp.WaitVisible(text),
		chromedp.Evaluate[chromedp.Void](`void $("#grpc-request-raw-text").val("")`),
		chromedp.SendKeys(text, request),
	)
}

// messages are those that the page shows.
const messages = `$("#grpc-response-data textarea").get().map((m) => m.value).join("\n")`

func TestBrowser(t *testing.T) {
	dir := directory(t)
	ctx := browser(t)
	proctest.Start(t, program(dir, "stock", "-reflection", "app.sock")).WaitFor("serving")
	url, _, _ := ttcurl(t, dir)
	do(ctx, t, chromedp.Navigate(url), chromedp.WaitReady(ready))

	if title := read(ctx, t, chromedp.Title()); title != "ttcurl · "+address {
		t.Errorf("title %q", title)
	}
	if heading := read(ctx, t, chromedp.Text(chromedp.CSS("header"))); !strings.Contains(heading, address) {
		t.Errorf("heading %q", heading)
	}
	for list, want := range map[string]string{"service": "[test.v1.Test]", "method": "[Echo Join Split Unary]"} {
		names := read(ctx, t, chromedp.Evaluate[[]string](`$("#grpc-`+list+` option").get().map((o) => o.text)`))
		if got := fmt.Sprint(names); got != want {
			t.Errorf("%ss %s, want %s", list, got, want)
		}
	}

	for _, test := range []struct{ method, request, want string }{
		{"Unary", `{"foo": "Foo", "bar": "it's <b>"}`, `{"bar":"it's \u003cb\u003e","foo":"Foo"}`},
		{"Split", `{"text": "light as"}`, `{"word":"light"} {"word":"as"}`},
		{"Join", `[{"word": "two"}, {"word": "words"}]`, `{"text":"two words"}`},
		{"Echo", `[{"message": "a"}, {"message": "b"}]`, `{"message":"a"} {"message":"b"}`},
		{"Unary", `{"foo": "fail"}`, ``},
	} {
		t.Run(test.method, func(t *testing.T) {
			do(ctx, t,
				choose(test.method),
				enter(test.request),
				chromedp.Click(chromedp.CSS("#grpc-request-raw-tab .grpc-invoke")),
				chromedp.WaitVisible(chromedp.CSS("#grpc-response-tab")),
			)
			got := compact(t, read(ctx, t, chromedp.Evaluate[string](messages)))
			if got != test.want {
				t.Errorf("the page shows %s, want %s", got, test.want)
			}
			failure := read(ctx, t, chromedp.Evaluate[string](`$("#grpc-response-error:visible").text()`))
			if failed := strings.Contains(failure, "FailedPrecondition"); failed != (test.want == "") {
				t.Errorf("the page shows the error %q", failure)
			}
			command := read(ctx, t, chromedp.Text(chromedp.CSS("#ttcurl-command")))
			if !strings.HasPrefix(command, "ttcurl "+address) {
				t.Errorf("the page shows the command %s", command)
			}
			p := proctest.Run(t, program(dir, "sh", "-c", command))
			if printed := compact(t, p.Stdout()); printed != got {
				t.Errorf("%s prints %s%s, want %s", command, printed, p.Stderr(), got)
			}
		})
	}
}

// compact returns the JSON values in the text as they are written without need for white space.
func compact(t *testing.T, text string) string {
	t.Helper()
	var values []string
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var value any
		if err := d.Decode(&value); errors.Is(err, io.EOF) {
			return strings.Join(values, " ")
		} else if err != nil {
			t.Fatal(err, text)
		}
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, string(b))
	}
}

// TestForm fills in the form, with a schema from .proto files, and takes the picture for the manual.
func TestForm(t *testing.T) {
	dir := directory(t)
	if err := os.CopyFS(filepath.Join(dir, "proto"), os.DirFS(protos)); err != nil {
		t.Fatal(err)
	}
	ctx := browser(t)
	server := proctest.Start(t, program(dir, "stock", "app.sock"))
	server.WaitFor("serving")
	url, _, _ := ttcurl(t, dir, "-import-path", "proto", "-proto", "test/v1/test.proto", "-H", "name: koye")
	const (
		field  = "#grpc-request-form tr.message_field "
		answer = chromedp.CSS("#grpc-response-data textarea")
	)
	do(ctx, t,
		chromedp.Navigate(url),
		chromedp.WaitReady(ready),
		choose("Split"),
		chromedp.Click(chromedp.CSS(field+"input")),
		chromedp.WaitEnabled(chromedp.CSS(field+"textarea")),
		chromedp.SendKeys(chromedp.CSS(field+"textarea"), "light as a feather"),
		chromedp.Click(chromedp.CSS("#grpc-request-tab .grpc-invoke")),
		chromedp.WaitVisible(answer),
	)
	got := compact(t, read(ctx, t, chromedp.Evaluate[string](messages)))
	if want := `{"word":"light"} {"word":"as"} {"word":"a"} {"word":"feather"}`; got != want {
		t.Errorf("the page shows %s, want %s", got, want)
	}
	server.WaitFor("koye")
	const want = "ttcurl -import-path=proto -proto=test/v1/test.proto " + address +
		` -H 'name: koye' -d '{"text":"light as a feather"}' test.v1.Test/Split`
	if got := read(ctx, t, chromedp.Text(chromedp.CSS("#ttcurl-command"))); got != want {
		t.Errorf("the page shows the command\n%s, want\n%s", got, want)
	}
	if *screenshot != "" {
		if err := os.WriteFile(*screenshot, read(ctx, t, chromedp.FullScreenshot(100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
