package main

import (
	"io"
	"log/slog"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is a bar on a terminal, and else a line now and then.
type progress struct {
	stderr io.Writer
	log    *slog.Logger
	bar    *progressbar.ProgressBar
	told   int // percent
}

func newProgress(stderr io.Writer) *progress {
	p := &progress{stderr: stderr, log: slog.New(slog.NewTextHandler(stderr, nil))}
	if f, ok := stderr.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(-1, progressbar.OptionSetWriter(stderr), progressbar.OptionSetPredictTime(true),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(), progressbar.OptionSetElapsedTime(true))
	}
	return p
}

// start tells what comes before the steps.
func (p *progress) start(what string) {
	if p.bar != nil {
		p.bar.Describe(what)
		return
	}
	p.log.Info(what)
}

// lines is how many there are for a whole run.
const lines = 20

// step tells that done of total steps are done, and what is next.
func (p *progress) step(done, total int, what string) {
	if p.bar != nil {
		p.bar.ChangeMax(total)
		p.bar.Describe(what)
		_ = p.bar.Set(done)
		return
	}
	if part := done * lines / total; done == 0 || part > p.told || done == total {
		p.told = part
		p.log.Info("measuring", "done", done, "of", total, "next", what)
	}
}
