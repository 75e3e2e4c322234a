package main_test

import (
	_ "embed"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chromedp/chromedp"

	"example.com/ttrpc-starter/tools/internal/chromium"
)

//go:embed testdata/page.html
var page string

// TestPage has a page in a browser make the calls that a browser can make: one answer, and a stream of answers.
func TestPage(t *testing.T) {
	ctx := chromium.Start(t)
	_, backend := probe(t)
	serve := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(page))
	}
	known, unknown := httptest.NewServer(http.HandlerFunc(serve)), httptest.NewServer(http.HandlerFunc(serve))
	defer known.Close()
	defer unknown.Close()
	g := gate(t, backend, "-cors-origin", known.URL)
	for origin, want := range map[string]string{
		known.URL:   `[{"data":"eA=="}] [{"data":"eA=="},{"data":"eA=="},{"data":"eA=="},{}] failed_precondition`,
		unknown.URL: "TypeError: Failed to fetch",
	} {
		const done = chromedp.CSS("body.done")
		if err := chromedp.Do(ctx, chromedp.Navigate(origin+"?"+g.url("")), chromedp.WaitReady(done)); err != nil {
			t.Fatal(err)
		}
		if got, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("pre"))); err != nil || got != want {
			t.Errorf("the page says %q, %v; want %q", got, err, want)
		}
	}
}
