package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/ttrpc-starter/bench/internal/worker"
	"example.com/ttrpc-starter/internal/paired"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// window is how long a pair is measured until the next one has its turn. Shorter ones have too few calls, and in
	// longer ones what else the machine does hits one pair and not the others.
	window = 40 * time.Millisecond

	// latencyWindow is longer, because its first calls meet processes that have slept.
	latencyWindow = 200 * time.Millisecond

	// settle is how many rounds come before what counts, until heaps and buffers have their size.
	settle = 2

	// cellTime ends a cell that has leastRounds, where a window's calls take longer than it.
	cellTime    = 45 * time.Second
	leastRounds = 10
)

// What the full suite combines.
var (
	sizes        = []int{0, kib, 16 * kib, 64 * kib, mib} // of messages, one way
	callerCounts = []int{1, 16, 128}
	rates        = []float64{2000, 10000} // calls a second
)

// suite is what is measured.
type suite struct {
	name     string
	rounds   int
	cells    []cell
	starts   int           // of each server, to see how much it takes while it has little to do
	rest     time.Duration // after a load, until its memory is looked at again; 0 for none
	trickle  time.Duration // how long a hundred calls a second go on at least; 0 for none
	latency  int           // rounds
	measured func(contender) bool
}

// cell is one kind of load.
type cell struct {
	window worker.Window
}

func calls(bytes, callers int) cell {
	return cell{worker.Window{Bytes: bytes, Callers: callers, Time: window}}
}

func streams(bytes, callers int) cell {
	return cell{worker.Window{Bytes: bytes, Callers: callers, Time: window, Stream: true}}
}

func latency(bytes int, rate float64) cell {
	return cell{worker.Window{Bytes: bytes, Rate: rate, Time: latencyWindow}}
}

// name is the benchmark's, without the contender.
func (c cell) name() string {
	switch w := c.window; {
	case w.Rate > 0:
		return fmt.Sprintf("Latency/bytes=%d/rate=%.0f", w.Bytes, w.Rate)
	case w.Stream:
		return fmt.Sprintf("Stream/bytes=%d/callers=%d", w.Bytes, w.Callers)
	default:
		return fmt.Sprintf("Call/bytes=%d/callers=%d", w.Bytes, w.Callers)
	}
}

func quick() suite {
	return suite{
		name: "quick", rounds: 40, latency: 10, starts: 1,
		cells: []cell{
			calls(0, 1), calls(0, 16), calls(0, 128), calls(64*kib, 16), calls(mib, 1), latency(kib, 2000),
		},
		measured: func(c contender) bool { return !c.full },
	}
}

func full() suite {
	s := suite{
		name: "full", rounds: 40, latency: 20, starts: 5, rest: 45 * time.Second, trickle: 10 * time.Minute,
		cells:    []cell{calls(0, 4), streams(0, 1), streams(0, 16)},
		measured: func(contender) bool { return true },
	}
	for _, rate := range rates {
		s.cells = append(s.cells, latency(kib, rate))
	}
	for _, bytes := range sizes {
		for _, callers := range callerCounts {
			s.cells = append(s.cells, calls(bytes, callers))
		}
	}
	return s
}

// run measures everything of a suite with programs of the directory bin, and gives each row to emit as soon as there is
// one.
func (s suite) run(
	ctx context.Context, bin string, all []contender, progress func(string), emit func(row) error,
) (used time.Duration, err error) {
	var loaded, starting []contender
	for _, c := range all {
		if !c.starts {
			loaded = append(loaded, c)
		}
		if !slices.Contains([]string{control, older, "ours-no-floor", "grpc-go-floor"}, c.name) {
			starting = append(starting, c)
		}
	}
	trickle, err := s.startTrickle(ctx, bin, loaded)
	if err != nil {
		return 0, err
	}
	defer func() { used += trickle.stop() }()
	for i, c := range s.cells {
		progress(fmt.Sprintf("%d of %d: %s", i+1, len(s.cells), c.name()))
		rows, cpu, err := s.cell(ctx, bin, c, loaded)
		used += cpu
		if err != nil {
			return used, fmt.Errorf("%s: %w", c.name(), err)
		}
		for _, r := range rows {
			if err := emit(r); err != nil {
				return used, err
			}
		}
	}
	var rows []row
	if s.starts > 0 {
		progress("servers with nothing to do")
		idle, cpu, err := s.idle(ctx, bin, starting)
		used += cpu
		if err != nil {
			return used, err
		}
		rows = idle
	}
	if s.trickle > 0 {
		progress("servers with little to do")
		more, err := trickle.wait(ctx)
		if err != nil {
			return used, err
		}
		rows = append(rows, more...)
	}
	for _, r := range rows {
		if err := emit(r); err != nil {
			return used, err
		}
	}
	return used, nil
}

// sample is what one pair did in all its windows of a cell.
type sample struct {
	speeds    []float64 // calls a second, by round
	calls     int
	cpu       time.Duration
	rss       [2][]float64 // of server and client, at the end of each window, in MiB
	latencies *hdrhistogram.Histogram
}

// cell starts a pair of each contender and lets them take turns. The pairs live as long as the cell, so that what one
// size of messages leaves in memory does not count for the next one.
func (s suite) cell(ctx context.Context, bin string, c cell, all []contender) (_ []row, cpu time.Duration, err error) {
	pairs := []*pair{}
	defer func() {
		for _, p := range pairs {
			cpu += p.stop()
		}
	}()
	for _, contender := range all {
		if c.window.Rate > 0 && contender.full {
			continue
		}
		p, err := startPair(ctx, bin, contender)
		if err != nil {
			return nil, cpu, err
		}
		pairs = append(pairs, p)
		if _, err := p.run(ctx, c.window); errors.Is(err, errors.ErrUnsupported) {
			pairs = pairs[:len(pairs)-1]
			cpu += p.stop()
		} else if err != nil {
			return nil, cpu, fmt.Errorf("%s: %w", contender.name, err)
		}
	}
	rounds := s.rounds
	if c.window.Rate > 0 {
		rounds = s.latency
	}
	samples := map[string]*sample{}
	begin := time.Now()
	for n := -settle; n < rounds && (n < leastRounds || time.Since(begin) < cellTime); n++ {
		if n == 0 {
			if samples, err = newSamples(pairs); err != nil {
				return nil, cpu, err
			}
		}
		if err := round(ctx, c.window, pairs, samples); err != nil {
			return nil, cpu, err
		}
	}
	for _, p := range pairs {
		used, err := p.cpu()
		if err != nil {
			return nil, cpu, err
		}
		samples[p.name].cpu += used
	}
	return rows(c.name(), all, samples), cpu, nil
}

func newSamples(pairs []*pair) (map[string]*sample, error) {
	samples := map[string]*sample{}
	for _, p := range pairs {
		before, err := p.cpu()
		if err != nil {
			return nil, err
		}
		samples[p.name] = &sample{cpu: -before, latencies: hdrhistogram.New(1, int64(timeout), 3)}
	}
	return samples, nil
}

// round gives each pair two windows. What comes of them goes into samples, unless they are not there yet.
func round(ctx context.Context, w worker.Window, pairs []*pair, samples map[string]*sample) error {
	results := make([]worker.Result, len(pairs))
	for i := range paired.Round(len(pairs)) {
		r, err := pairs[i].run(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", pairs[i].name, err)
		}
		results[i].Calls += r.Calls
		results[i].Time += r.Time
		s := samples[pairs[i].name]
		if s == nil {
			continue
		}
		for _, l := range r.Latencies {
			if err := s.latencies.RecordValue(max(1, int64(l))); err != nil {
				return err
			}
		}
		for j, process := range []*process{pairs[i].server, pairs[i].client} {
			rss, err := process.rss()
			if err != nil {
				return err
			}
			s.rss[j] = append(s.rss[j], rss)
		}
	}
	for i, r := range results {
		if s := samples[pairs[i].name]; s != nil {
			s.calls += r.Calls
			s.speeds = append(s.speeds, float64(r.Calls)/r.Time.Seconds())
		}
	}
	return nil
}

// rows makes rows of the samples of one cell.
func rows(name string, all []contender, samples map[string]*sample) []row {
	// What one pair of stock ttrpc differs from another one in is what nothing but chance can be.
	noise := 1.0
	again, first := samples[control], samples[stock]
	if again != nil && first != nil {
		noise += math.Abs(paired.Median(ratios(again.speeds, first.speeds)) - 1)
		first.speeds = means(first.speeds, again.speeds)
	}
	var rows []row
	for _, c := range all {
		s := samples[c.name]
		if s == nil {
			continue
		}
		r := row{name + "/rpc=" + c.name, len(s.speeds), map[string]float64{
			"cpu-ns/call": float64(s.cpu) / float64(s.calls), "rss-MiB": paired.Median(s.rss[0]),
			"client-rss-MiB": paired.Median(s.rss[1]),
		}}
		if s.latencies.TotalCount() > 0 {
			for unit, quantile := range map[string]float64{"p50-ns": 50, "p99-ns": 99, "p99.9-ns": 99.9} {
				r.values[unit] = float64(s.latencies.ValueAtQuantile(quantile))
			}
			r.values["calls"] = float64(s.calls)
		} else {
			r.values["calls/s"] = paired.Median(s.speeds)
			for unit, other := range map[string]string{"x-ttrpc": stock, "x-grpc-go": grpcGo, "x-older": older} {
				if o := samples[other]; o != nil && other != c.name {
					low, high := paired.Interval(ratios(s.speeds, o.speeds))
					r.values[unit] = paired.Median(ratios(s.speeds, o.speeds))
					r.values[unit+"-low"], r.values[unit+"-high"] = low/noise, high*noise
				}
			}
		}
		rows = append(rows, r)
	}
	return rows
}

func ratios(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return r
}

func means(a, b []float64) []float64 {
	m := make([]float64, len(a))
	for i := range a {
		m[i] = (a[i] + b[i]) / 2
	}
	return m
}

// connections is how many idle ones are opened to see what each takes.
const connections = 1000

// idle looks at servers that have nothing to do: after their start and one call, with connections, and some time after
// a load.
func (s suite) idle(ctx context.Context, bin string, all []contender) (_ []row, cpu time.Duration, err error) {
	values := map[string]map[string][]float64{} // by contender and unit
	add := func(c contender, unit string, value float64) {
		values[c.name][unit] = append(values[c.name][unit], value)
	}
	pairs := []*pair{}
	defer func() {
		for _, p := range pairs {
			cpu += p.stop()
		}
	}()
	for n := range s.starts {
		for _, c := range all {
			if n == 0 {
				values[c.name] = map[string][]float64{}
			}
			p, err := startPair(ctx, bin, c)
			if err != nil {
				return nil, cpu, err
			}
			pairs = append(pairs, p)
			rss, err := p.server.rss()
			if err != nil {
				return nil, cpu, err
			}
			add(c, "start-ms", p.startTime.Seconds()*1000)
			add(c, "rss-MiB", rss)
			if n > 0 || s.rest == 0 {
				if _, err := p.run(ctx, worker.Window{Open: connections}); err != nil {
					return nil, cpu, fmt.Errorf("%s with %d connections: %w", c.name, connections, err)
				}
				more, err := p.server.rss()
				if err != nil {
					return nil, cpu, err
				}
				add(c, "connection-KiB", (more-rss)*kib/connections)
				pairs = pairs[:len(pairs)-1]
				cpu += p.stop()
				continue
			}
			w := worker.Window{Bytes: 16 * kib, Callers: 16, Time: time.Second}
			if _, err := p.run(ctx, w); err != nil {
				return nil, cpu, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	if s.rest > 0 {
		select {
		case <-ctx.Done():
			return nil, cpu, context.Cause(ctx)
		case <-time.After(s.rest):
		}
	}
	var result []row
	for _, p := range pairs {
		rss, err := p.server.rss()
		if err != nil {
			return nil, cpu, err
		}
		add(p.contender, "rested-rss-MiB", rss)
	}
	for _, c := range all {
		r := row{"Idle/rpc=" + c.name, s.starts, map[string]float64{}}
		for unit, v := range values[c.name] {
			r.values[unit] = paired.Median(v)
		}
		info, err := os.Stat(program(bin, c.server))
		if err != nil {
			return nil, cpu, err
		}
		r.values["binary-MiB"] = float64(info.Size()) / mib
		result = append(result, r)
	}
	return result, cpu, nil
}

// trickle is a hundred calls a second to each of some servers, all the time that others are measured.
type trickle struct {
	until time.Time
	pairs []*pair
	group sync.WaitGroup
	stops context.CancelFunc
	mu    sync.Mutex
	rss   map[string]float64
	err   error
}

func (s suite) startTrickle(ctx context.Context, bin string, all []contender) (*trickle, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &trickle{until: time.Now().Add(s.trickle), stops: cancel, rss: map[string]float64{}}
	for _, c := range all {
		if s.trickle == 0 || c.server != "ours" && c.server != "grpc" {
			continue
		}
		p, err := startPair(ctx, bin, c)
		if err != nil {
			t.stop()
			return nil, err
		}
		t.pairs = append(t.pairs, p)
		t.group.Go(func() {
			for ctx.Err() == nil {
				_, err := p.run(ctx, worker.Window{Bytes: kib, Rate: 100, Time: time.Second})
				rss, rssErr := p.server.rss()
				t.mu.Lock()
				t.rss[p.name] = rss
				if err := errors.Join(err, rssErr); err != nil && ctx.Err() == nil {
					t.err = fmt.Errorf("%s: %w", p.name, err)
				}
				t.mu.Unlock()
			}
		})
	}
	return t, nil
}

// wait returns what the servers take in the end.
func (t *trickle) wait(ctx context.Context) ([]row, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Until(t.until)):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var rows []row
	for _, name := range slices.Sorted(maps.Keys(t.rss)) {
		rows = append(rows, row{"Trickle/rpc=" + name, 1, map[string]float64{"rss-MiB": t.rss[name]}})
	}
	return rows, t.err
}

func (t *trickle) stop() (cpu time.Duration) {
	t.stops()
	t.group.Wait()
	for _, p := range t.pairs {
		cpu += p.stop()
	}
	return cpu
}
