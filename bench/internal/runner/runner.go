// Package runner measures: it builds the contenders, starts them and puts every load on each.
//
// Each window has processes of its own. So nothing of one window (a heap that has grown, a process that was lucky with
// its addresses) shows in the next, and a fault in one does not reach the others. Contenders take turns in random order
// within each round of a case, and the rounds of all cases are interleaved. So what changes on the machine in the
// meantime meets all of them.
package runner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/ttrpc-starter/bench/result"
)

// Options say what to measure. All are needed.
type Options struct {
	Suite      Suite
	Contenders []Contender
	Build      *Build
	Module     string // the directory of the benchmark's module
	Seed       uint64 // of the random order
	// Timeout is how long anything may take beyond the time that it is meant to.
	Timeout time.Duration
	// Progress is told what is measured next, and how many of how many steps are done.
	Progress func(done, total int, what string)
}

// runner is one run.
type runner struct {
	Options
	run     *result.Run
	rng     *rand.Rand
	resting []*rested
}

// Run measures until it is done or ctx ends; what was measured until then is in the result, which is not Complete then.
// What fails is in the result, too. An error means that nothing could be measured.
func Run(ctx context.Context, o Options) (*result.Run, error) {
	start := time.Now()
	r := &runner{Options: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), run: &result.Run{
		Schema: "schema.json", Version: result.Version, Suite: o.Suite.Name, Started: start.UTC(), Seed: o.Seed,
		Machine: machine(),
		// So that they are lists in JSON, even if they stay empty.
		Loads: []result.Load{}, Footprints: []result.Footprint{},
		Idle: []result.Connections{}, InFlight: []result.InFlight{},
	}}
	for _, c := range o.Contenders {
		r.run.Contenders = append(r.run.Contenders, c.Contender)
	}
	var err error
	if r.run.Modules, err = o.Build.modules(o.Contenders); err != nil {
		return nil, err
	}
	steps := r.plan()
	defer r.wake()
	for i, s := range steps {
		o.Progress(i, len(steps), s.what)
		if s.do(ctx); ctx.Err() != nil {
			break
		}
	}
	if r.run.Complete = ctx.Err() == nil; r.run.Complete {
		o.Progress(len(steps), len(steps), "done")
	}
	// Drop what was not measured before ctx ended.
	r.run.Loads = slices.DeleteFunc(r.run.Loads, func(l result.Load) bool { return len(l.Rounds) == 0 })
	r.run.Footprints = slices.DeleteFunc(r.run.Footprints, func(f result.Footprint) bool {
		return f.Binary == 0 && f.Error == ""
	})
	r.run.Idle = slices.DeleteFunc(r.run.Idle, func(c result.Connections) bool { return c.Connections == 0 })
	r.run.InFlight = slices.DeleteFunc(r.run.InFlight, func(f result.InFlight) bool { return f.Calls == 0 })
	r.run.Seconds = time.Since(start).Seconds()
	r.run.Machine.LoadEnd = loadAverage()
	return r.run, nil
}

// step is a part of a run. It keeps its result unless ctx has ended before it: a failure then says nothing.
type step struct {
	what string
	do   func(ctx context.Context)
}

// plan returns all steps, and makes room for their results.
func (r *runner) plan() []step {
	return slices.Concat(r.planLoads(), r.planFootprints(), r.planIdle(), r.planInFlight())
}

// turns returns the contenders that are in a part of the run, in random order.
func (r *runner) turns(in func(Contender) bool) []Contender {
	var members []Contender
	for _, c := range r.Contenders {
		if in(c) {
			members = append(members, c)
		}
	}
	r.rng.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members
}

func loads(c Contender) bool { return c.Loads }
func own(c Contender) bool   { return c.Own }
func both(c Contender) bool  { return c.Loads && c.Own }

// within bounds something that is meant to take d.
func (r *runner) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	d += r.Timeout
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %v", d))
}
