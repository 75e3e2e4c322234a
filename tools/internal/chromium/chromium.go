// Package chromium starts a browser for tests of pages.
package chromium

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"example.com/ttrpc-starter/internal/proctest"
)

// Patience is for all that a test does in the browser, on a machine that may be slow and shared.
const Patience = 5 * time.Minute

// Start starts a headless Chromium with a profile of its own, which ends with the test.
func Start(t *testing.T) context.Context {
	t.Helper()
	path := proctest.Program(t, "chromium", "chromium-browser", "google-chrome")
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(Patience), // rather than 20 s
		chromedp.WindowSize(1200, 900),
		chromedp.NoSandbox, // as it must be for root; the only pages are our own
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}
