package runner

import (
	"context"
	"fmt"
	"time"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/bench/result"
)

// A count is final when it has not changed for so long. Calls get more time, because they may only be late. A glance is
// the time from one look to the next.
const (
	still      = 300 * time.Millisecond
	callsStill = 2 * time.Second
	glance     = 25 * time.Millisecond
)

// await returns the answer to a command once what it counts has reached n, or has not changed for that long.
func (p *pair) await(
	ctx context.Context, do string, still time.Duration, n int, count func(control.Answer) int,
) (control.Answer, error) {
	last, since := -1, time.Now()
	for {
		a, err := p.server.ask(ctx, control.Command{Do: do})
		if err != nil {
			return a, err
		}
		switch got := count(a); {
		case got == n:
			return a, nil
		case got != last:
			last, since = got, time.Now()
		case time.Since(since) > still:
			return a, nil
		}
		select {
		case <-time.After(glance):
		case <-ctx.Done():
			return a, context.Cause(ctx)
		}
	}
}

// level is how much a server has of all things while nothing happens.
type level struct {
	rss, heap  int64
	goroutines int
}

func (p *pair) level(ctx context.Context) (level, error) {
	a, err := p.await(ctx, control.Memory, still, -1, func(a control.Answer) int { return a.Goroutines })
	rss, _ := p.server.memory()
	return level{rss, a.Heap, a.Goroutines}, err
}

func (r *runner) planIdle() []step {
	var steps []step
	index := map[string]int{}
	for _, c := range r.Contenders {
		if both(c) {
			index[c.Name] = len(r.run.Idle)
			r.run.Idle = append(r.run.Idle, make([]result.Connections, len(r.Suite.Idle))...)
		}
	}
	for _, c := range r.turns(both) {
		steps = append(steps, step{"idle connections: " + c.Name, func(ctx context.Context) {
			rows, err := r.idle(ctx, c)
			if err != nil {
				for _, n := range r.Suite.Idle[len(rows):] {
					rows = append(rows, result.Connections{Contender: c.Name, Connections: n, Error: err.Error()})
				}
			}
			if ctx.Err() == nil {
				copy(r.run.Idle[index[c.Name]:], rows)
			}
		}})
	}
	return steps
}

func (r *runner) idle(ctx context.Context, c Contender) (rows []result.Connections, err error) {
	ctx, cancel := r.within(ctx, 0)
	defer cancel()
	p, base, err := r.startIdle(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	for _, n := range r.Suite.Idle {
		if _, err := p.call(ctx, control.Command{Do: control.Open, Count: n}); err != nil {
			return rows, err
		}
		now, err := p.level(ctx)
		if err != nil {
			return rows, err
		}
		rows = append(rows, result.Connections{
			Contender: c.Name, Connections: n,
			RSS: now.rss - base.rss, Heap: now.heap - base.heap, Goroutines: now.goroutines - base.goroutines,
		})
	}
	return rows, nil
}

// startIdle starts a pair, and returns what the server has once its first connection has come and gone.
func (r *runner) startIdle(ctx context.Context, c Contender, maxCalls int) (*pair, level, error) {
	p, err := r.startPair(ctx, c, "unix", maxCalls)
	if err != nil {
		return nil, level{}, err
	}
	if _, err = p.call(ctx, control.Command{Do: control.First}); err == nil {
		var base level
		if base, err = p.level(ctx); err == nil {
			return p, base, nil
		}
	}
	p.stop()
	return nil, level{}, err
}

func (r *runner) planInFlight() []step {
	var steps []step
	n := r.Suite.InFlight
	type row struct {
		contender string
		limit     int
	}
	index := map[row]int{}
	for _, c := range r.Contenders {
		if !both(c) {
			continue
		}
		for _, limit := range c.Limits {
			index[row{c.Name, limit}] = len(r.run.InFlight)
			r.run.InFlight = append(r.run.InFlight, result.InFlight{Contender: c.Name})
		}
	}
	for _, c := range r.turns(both) {
		for _, limit := range c.Limits {
			i := index[row{c.Name, limit}]
			if limit == unlimited {
				limit = n
			}
			what := fmt.Sprintf("%d calls in flight: %s, limit %d", n, c.Name, limit)
			steps = append(steps, step{what, func(ctx context.Context) {
				row := result.InFlight{Contender: c.Name, Limit: limit, Calls: n}
				if err := r.inFlight(ctx, c, &row); err != nil { // then what was counted means nothing
					row = result.InFlight{Contender: c.Name, Limit: limit, Calls: n}
					row.Error, row.Unsupported = err.Error(), isUnsupported(err)
				}
				if ctx.Err() == nil {
					r.run.InFlight[i] = row
				}
			}})
		}
	}
	return steps
}

func (r *runner) inFlight(ctx context.Context, c Contender, row *result.InFlight) error {
	ctx, cancel := r.within(ctx, 0)
	defer cancel()
	p, base, err := r.startIdle(ctx, c, row.Limit)
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := p.call(ctx, control.Command{Do: control.Hold, Count: row.Calls}); err != nil {
		return err
	}
	held, err := p.await(ctx, control.Held, callsStill, row.Calls, func(a control.Answer) int { return a.Count })
	if err != nil {
		return err
	}
	row.Reached = held.Count
	now, err := p.server.ask(ctx, control.Command{Do: control.Memory})
	if err != nil {
		return err
	}
	rss, _ := p.server.memory()
	row.RSS, row.Goroutines = rss-base.rss, now.Goroutines-base.goroutines
	begin := time.Now()
	if _, err := p.server.ask(ctx, control.Command{Do: control.Release}); err != nil {
		return err
	}
	finished, err := p.call(ctx, control.Command{Do: control.Finish})
	row.Answered, row.Seconds = finished.Count, time.Since(begin).Seconds()
	return err
}
