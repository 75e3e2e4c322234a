// Package server is what the contenders' servers have in common: the work of their handlers, and the runner's commands.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

// Options say where to serve.
type Options struct {
	endpoint.Endpoint
	MaxCalls int // of one connection that run at once; 0 is the contender's default
}

// Serve serves h until the process ends, or returns why it cannot. It calls ready with the address to dial as soon as
// it listens there.
type Serve func(ctx context.Context, o Options, h *Handler, ready func(address string)) error

// Main is the main function of a contender's server.
func Main(serve Serve) {
	f := control.Start()
	h := &Handler{release: make(chan struct{})}
	go func() {
		err := serve(context.Background(), Options{f.Endpoint, f.MaxCalls}, h, func(address string) {
			_ = control.Say(control.Answer{Address: address})
		})
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}()
	control.Answers(h.do)
}

// Handler is what all contenders' services do, where it takes more than to return what came.
type Handler struct {
	release chan struct{}
	once    sync.Once
	held    atomic.Int64
}

// Hold returns when the runner releases all calls that wait, or when ctx ends.
func (h *Handler) Hold(ctx context.Context) error {
	h.held.Add(1)
	defer h.held.Add(-1)
	select {
	case <-h.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// EchoStream answers each request until the client closes its side.
func EchoStream[Request any](recv func() (Request, error), answer func(Request) error) error {
	for {
		req, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(req); err != nil {
			return err
		}
	}
}

func (h *Handler) do(c control.Command) (a control.Answer) {
	switch c.Do {
	case control.Usage:
		a.Usage = control.UsageNow()
	case control.Memory:
		runtime.GC()
		runtime.GC() // what pools kept through the first
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		a.Heap, a.Goroutines = int64(m.HeapInuse+m.StackInuse), runtime.NumGoroutine()
	case control.Held:
		a.Count = int(h.held.Load())
	case control.Release:
		h.once.Do(func() { close(h.release) })
	default:
		a.Error = fmt.Sprintf("a server does not know the command %q", c.Do)
	}
	return a
}
