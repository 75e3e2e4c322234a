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
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/tools/internal/chromium"
)

var screenshot = flag.String("screenshot", "", "write pictures of the page after a call to `NAME`.png, NAME-dark.png")

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
	ctx := chromium.Start(t)
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
	ctx := chromium.Start(t)
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
	state := read(ctx, t, chromedp.Text(chromedp.CSS("#ttcurl-progress")))
	if !strings.HasPrefix(state, "Done after ") || !strings.HasSuffix(state, ", 4 messages") {
		t.Errorf("the page says %q", state)
	}
	for theme, name := range map[string]string{"light": "", "dark": "-dark"} {
		do(ctx, t, chromedp.EmulateViewport(1000, 700, chromedp.EmulateScale(1.5)), prefer(theme))
		wantContrast(ctx, t, theme)
		if *screenshot != "" {
			picture := read(ctx, t, chromedp.FullScreenshot(100))
			if err := os.WriteFile(*screenshot+name+".png", picture, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// prefer makes the browser say that its user wants a light or a dark page.
func prefer(theme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		return err
	})
}

// wantContrast checks that all text that is visible can be read: https://www.w3.org/TR/WCAG22/#contrast-minimum.
func wantContrast(ctx context.Context, t *testing.T, theme string) {
	t.Helper()
	const script = `(() => {
		const context = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
		const rgba = (color) => {
			context.clearRect(0, 0, 1, 1);
			context.fillStyle = color;
			context.fillRect(0, 0, 1, 1);
			return context.getImageData(0, 0, 1, 1).data;
		};
		const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
			const v = c[i] / 255;
			return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		}, 0);
		const ground = (e) => {
			for (; e; e = e.parentElement) {
				const c = rgba(getComputedStyle(e).backgroundColor);
				if (c[3] === 255) return c;
			}
			return rgba("Canvas");
		};
		const bad = [];
		for (const e of document.querySelectorAll("body *")) {
			const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.value;
			const unread = ":disabled, .ui-state-disabled, option, script, style";
			if (!own || !e.checkVisibility() || e.closest(unread)) continue;
			const [a, b] = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
			const contrast = (a + 0.05) / (b + 0.05);
			if (contrast < 4.5) bad.push(e.tagName + " " + (e.id || e.className) + " " + contrast.toFixed(1));
		}
		return bad.join(", ");
	})()`
	if bad := read(ctx, t, chromedp.Evaluate[string](script)); bad != "" {
		t.Errorf("%s: too little contrast: %s", theme, bad)
	}
}

// TestRunningCall shows what the page tells of a stream while it runs, and that Cancel ends it on the server.
func TestRunningCall(t *testing.T) {
	ctx, server := opened(t)
	do(ctx, t,
		choose("Split"),
		enter(`{"text": "0 1 2 block"}`),
		chromedp.Click(chromedp.CSS("#grpc-request-raw-tab .grpc-invoke")),
		until(`$("#ttcurl-progress").text().match(/^Running for .*, 3 messages so far$/)`),
	)
	server.WaitFor("blocks")
	do(ctx, t, until(`$("#grpc-service:disabled, #grpc-method:disabled").length === 2`),
		chromedp.Click(chromedp.CSS("#ttcurl-cancel")))
	server.WaitFor("cancelled")
	do(ctx, t, until(`$("#ttcurl-progress").text().match(/^Cancelled after .*, 3 messages$/)`),
		until(`$("#ttcurl-notice, #ttcurl-cancel").is(":hidden")`),
		until(`$("#grpc-request-raw-tab .grpc-invoke").is(":enabled")`),
		until(`$("#grpc-service:enabled, #grpc-method:enabled").length === 2`))
}

// TestManyMessages shows that an error is seen without scrolling, however many messages came before it.
func TestManyMessages(t *testing.T) {
	ctx, _ := opened(t, "-max-messages", "100")
	do(ctx, t, choose("Split"),
		enter(`{"text": "`+strings.Repeat("x ", 101)+`"}`),
		chromedp.Click(chromedp.CSS("#grpc-request-raw-tab .grpc-invoke")),
		chromedp.WaitVisible(chromedp.CSS("#grpc-response-error")),
		until(`$("#ttcurl-progress").text().match(/^Failed after .*, 100 messages$/)`),
		until(`$("#grpc-response-error")[0].getBoundingClientRect().bottom < innerHeight`),
	)
}

// TestCopy copies the command of a stream.
func TestCopy(t *testing.T) {
	ctx, _ := opened(t)
	const clipboard = `void (navigator.clipboard.writeText = async (text) => { window.copied = text })`
	do(ctx, t,
		chromedp.Evaluate[chromedp.Void](clipboard),
		choose("Echo"),
		enter(`[{"message": "a"}, {"message": "b"}]`),
		chromedp.Click(chromedp.CSS("#ttcurl-copy")),
		until(`$("#ttcurl-copy").text() === "Copied"`),
	)
	want := "ttcurl " + address + ` -d '{"message":"a"} {"message":"b"}' test.v1.Test/Echo`
	if got := read(ctx, t, chromedp.Evaluate[string]("copied")); got != want {
		t.Errorf("copied %s, want %s", got, want)
	}
}

// TestNoBoxes shows that the page tells what is wrong where it can be read on, and opens no box.
func TestNoBoxes(t *testing.T) {
	ctx, server := opened(t)
	var boxes atomic.Int32
	err := chromedp.Listen(ctx, func(event any) {
		if _, ok := event.(*cdppage.EventJavascriptDialogOpening); ok {
			boxes.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	do(ctx, t, choose("Unary"), enter(`{"foo": `),
		chromedp.Click(chromedp.CSS("#grpc-request-raw-tab .grpc-invoke")),
		until(`$("#ttcurl-notice").is(":visible") && $("#ttcurl-notice").text() !== ""`),
	)
	do(ctx, t, enter(`{"foo": "a"}`),
		chromedp.Click(chromedp.CSS("#grpc-request-raw-tab .grpc-invoke")),
		until(`$("#ttcurl-notice").is(":hidden") && $("#ttcurl-progress").text().startsWith("Done")`),
	)
	const entries = `$("#grpc-history-list .history-item-header").length`
	do(ctx, t, chromedp.Click(chromedp.CSS(`a[href="#grpc-history-tab"]`)),
		until(entries+` > 0`),
		chromedp.Click(chromedp.CSS("#grpc-history-clear")),
		until(`$("#ttcurl-notice").is(":visible") && `+entries+` > 0`),
		chromedp.Click(chromedp.CSS("#grpc-history-clear")),
		until(`$("#ttcurl-notice").is(":hidden") && `+entries+` === 0`),
	)
	server.Signal(os.Kill)
	if n := boxes.Load(); n != 0 {
		t.Errorf("the page opened %d boxes", n)
	}
}

// opened opens the page in a browser, for a server that has reflection.
func opened(t *testing.T, flags ...string) (context.Context, *proctest.Process) {
	t.Helper()
	dir := directory(t)
	ctx := chromium.Start(t)
	server := proctest.Start(t, program(dir, "stock", "-reflection", "app.sock"))
	server.WaitFor("serving")
	url, _, _ := ttcurl(t, dir, flags...)
	do(ctx, t, chromedp.Navigate(url), chromedp.WaitReady(ready))
	return ctx, server
}

// until waits for a condition in the page.
func until(condition string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Poll[bool](`!!(`+condition+`)`, chromedp.WithPollingTimeout(chromium.Patience))(ctx, t)
		return chromedp.Void{}, err
	}
}
