package runner

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/bench/result"
)

func (r *runner) planFootprints() []step {
	index := map[string]int{}
	var steps []step
	for _, c := range r.Contenders {
		if !c.Own {
			continue
		}
		i := len(r.run.Footprints)
		index[c.Name] = i
		r.run.Footprints = append(r.run.Footprints, result.Footprint{Contender: c.Name, Starts: []result.Start{}})
		steps = append(steps, step{"size: " + c.Name, func(ctx context.Context) {
			f := result.Footprint{Contender: c.Name, Starts: []result.Start{}}
			if err := r.Build.measure(ctx, r.Module, c.Server, &f); err != nil {
				f.Error = err.Error()
			}
			if ctx.Err() == nil {
				r.run.Footprints[i] = f
			}
		}})
	}
	for round := 1; round <= r.Suite.Starts; round++ {
		for _, c := range r.turns(own) {
			steps = append(steps, step{fmt.Sprintf("cold start %d: %s", round, c.Name), func(ctx context.Context) {
				r.coldStart(ctx, c, &r.run.Footprints[index[c.Name]])
			}})
		}
		steps = append(steps, step{"memory after the load", r.rest})
	}
	return steps
}

// rested is a server that has got a load and now has nothing to do.
type rested struct {
	*pair
	footprint *result.Footprint
	start     result.Start
}

// coldStart starts a server while its client waits for it, puts a load on it and lets it rest. An error goes into f at
// once; the start goes there when the rest is over.
func (r *runner) coldStart(ctx context.Context, c Contender, f *result.Footprint) {
	bounded, cancel := r.within(ctx, r.Suite.Busy)
	defer cancel()
	p, err := r.newPair(c, "unix", 0)
	if err == nil {
		resting := &rested{pair: p, footprint: f}
		if err = r.firstReply(bounded, c, resting); err == nil {
			r.resting = append(r.resting, resting)
			return
		}
		p.stop()
	}
	if ctx.Err() == nil {
		fail(f, err)
	}
}

func (r *runner) firstReply(ctx context.Context, c Contender, p *rested) (err error) {
	if p.client, err = start("the client", r.Build.Path(c.Client), p.flags.Args()...); err != nil {
		return err
	}
	// It answers when it is up, which must not count for the server.
	if _, err := p.client.ask(ctx, control.Command{Do: control.Nothing}); err != nil {
		return err
	}
	args := p.flags.Args()
	if !c.Loads { // a server's own flags, not the runner's
		args = []string{"-address", p.flags.Endpoint.Address}
	}
	begin := time.Now()
	if p.server, err = start("the server", r.Build.Path(c.Server), args...); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, p.server.stdout) }() // it may say that it is ready
	if _, err := p.call(ctx, control.Command{Do: control.First}); err != nil {
		return err
	}
	p.start.FirstReply = time.Since(begin)
	p.start.IdleRSS, p.start.IdlePSS = p.server.memory()
	busy := result.Case{Transport: "unix", Kind: "unary", Payload: 1 << 10, Callers: 16}
	if _, err := p.call(ctx, control.Command{Do: control.Load, Case: busy, Time: r.Suite.Busy}); err != nil {
		return err
	}
	p.client.stop()
	return nil
}

// fail adds to why there are fewer starts than rounds.
func fail(f *result.Footprint, err error) {
	if !strings.Contains(f.Error, err.Error()) {
		f.Error = strings.TrimPrefix(f.Error+"; "+err.Error(), "; ")
	}
}

// rest looks at the memory of the servers that rest, after a while, and ends them.
func (r *runner) rest(ctx context.Context) {
	defer r.wake()
	select {
	case <-time.After(r.Suite.Quiet):
	case <-ctx.Done():
		return
	}
	for _, p := range r.resting {
		select {
		case <-p.server.ended:
			fail(p.footprint, p.server.end())
		default:
			p.start.AfterRSS, p.start.AfterPSS = p.server.memory()
			p.footprint.Starts = append(p.footprint.Starts, p.start)
		}
	}
}

// wake ends the servers that rest.
func (r *runner) wake() {
	for _, p := range r.resting {
		p.stop()
	}
	r.resting = nil
}
