package runner

import (
	"context"
	"fmt"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/bench/result"
)

func (r *runner) planLoads() []step {
	type key struct {
		c         result.Case
		contender string
	}
	index := map[key]int{}
	rounds := 0
	for _, l := range r.Suite.Loads {
		rounds = max(rounds, l.Rounds)
		for _, c := range r.Contenders {
			if c.Loads {
				index[key{l.Case, c.Name}] = len(r.run.Loads)
				load := result.Load{Case: l.Case, Contender: c.Name, Rounds: []result.Round{}}
				r.run.Loads = append(r.run.Loads, load)
			}
		}
	}
	var steps []step
	for round := 1; round <= rounds; round++ {
		for _, l := range r.Suite.Loads {
			if round > l.Rounds {
				continue
			}
			for _, c := range r.turns(loads) {
				i := index[key{l.Case, c.Name}]
				what := fmt.Sprintf("round %d: %s, %s, %s, %d bytes, %d callers",
					round, c.Name, l.Transport, l.Kind, l.Payload, l.Callers)
				steps = append(steps, step{what, func(ctx context.Context) {
					measured := r.load(ctx, l, c)
					if measured.Round = round; ctx.Err() == nil {
						r.run.Loads[i].Rounds = append(r.run.Loads[i].Rounds, measured)
					}
				}})
			}
		}
	}
	return steps
}

func (r *runner) load(ctx context.Context, l Load, c Contender) result.Round {
	ctx, cancel := r.within(ctx, l.Warm+l.Window)
	defer cancel()
	round, err := r.window(ctx, l, c)
	if err != nil {
		return result.Round{Error: err.Error(), Unsupported: isUnsupported(err)}
	}
	return round
}

// window starts the contender, warms it up and measures it. No call is open when the window starts and when it ends, so
// what the processes use in between is for the calls that are counted.
func (r *runner) window(ctx context.Context, l Load, c Contender) (result.Round, error) {
	p, err := r.startPair(ctx, c, l.Transport, 0)
	if err != nil {
		return result.Round{}, err
	}
	defer p.stop()
	if _, err := p.call(ctx, control.Command{Do: control.Load, Case: l.Case, Time: l.Warm}); err != nil {
		return result.Round{}, err
	}
	before, err := p.server.ask(ctx, control.Command{Do: control.Usage})
	if err != nil {
		return result.Round{}, err
	}
	a, err := p.call(ctx, control.Command{Do: control.Load, Case: l.Case, Time: l.Window})
	if err != nil {
		return result.Round{}, err
	}
	after, err := p.server.ask(ctx, control.Command{Do: control.Usage})
	if err != nil {
		return result.Round{}, err
	}
	round := a.Round
	round.Server = control.Since(before.Usage, after.Usage)
	round.Server.RSS, round.Server.PSS = p.server.memory()
	round.Client.RSS, round.Client.PSS = p.client.memory()
	return round, nil
}
