package report

import (
	"fmt"

	"example.com/ttrpc-starter/bench/result"
)

// small is the case of the goals that speak of small messages.
func small(callers int) result.Case { return unary(0, callers) }

func unary(payload, callers int) result.Case {
	return result.Case{Transport: "unix", Kind: "unary", Payload: payload, Callers: callers}
}

// State is how a goal stands.
type State int

// Information is a number that no goal was set for.
const (
	Unknown State = iota // not measured
	Met
	Missed
	Information
)

// Goal is a ratio that was wanted, and what came of it.
type Goal struct {
	Difference
	State State

	contender, reference string
	wanted               float64
	atMost               bool
	what, note           phrase
}

// Goals returns the goals that were set, with what the run measured of them. The median decides, however large the
// noise is. A note says where the noise could have changed the decision.
func Goals(run *result.Run) []Goal {
	n := look(run)
	rate := func(c result.Case, what phrase, contender, reference string, wanted float64) Goal {
		g := Goal{
			Difference: n.compare(c, contender, reference, callsPerSecond),
			contender:  contender, reference: reference, wanted: wanted,
			what: say("%s: calls/s", "%s: 呼び出し数/秒", what),
		}
		return g.decide(n.why(c, contender), n.why(c, reference))
	}
	goals := []Goal{}
	for _, g := range []struct{ callers, stock, grpc float64 }{{1, 0.97, 1.8}, {16, 1.05, 2.0}, {128, 1.35, 2.7}} {
		c := small(int(g.callers))
		what := say("small, %s", "小さなメッセージ、%s", callers(c.Callers))
		goals = append(goals, rate(c, what, Ours, Stock, g.stock), rate(c, what, Ours, GRPC, g.grpc))
	}
	c := small(128)
	goals = append(goals, Goal{
		Difference: n.compare(c, Ours, Stock, cpuPerCall),
		contender:  Ours, reference: Stock, wanted: 0.75, atMost: true,
		what: say("small, %s: CPU per call", "小さなメッセージ、%s: 呼び出しあたりの CPU 時間", callers(128)),
	}.decide(n.why(c, Ours), n.why(c, Stock)))

	for _, g := range []struct {
		c           result.Case
		what        phrase
		stock, grpc float64
	}{
		{small(128), say("small, %s", "小さなメッセージ、%s", callers(128)), 1.5, 2.2},
		{unary(64<<10, 16), say("64 KiB, %s", "64 KiB、%s", callers(16)), 2.5, 2.5},
		{unary(1<<20, 1), say("1 MiB, %s", "1 MiB、%s", callers(1)), 2.5, 1.2},
	} {
		both := say("%s, heap floor on both", "%s、双方にヒープ下限あり", g.what)
		one := say("%s, heap floor on ours alone", "%s、ours のみヒープ下限あり", g.what)
		goals = append(goals,
			rate(g.c, both, OursFloor, StockFloor, g.stock), rate(g.c, both, OursFloor, GRPCFloor, g.grpc),
			rate(g.c, one, OursFloor, Stock, 0), rate(g.c, one, OursFloor, GRPC, 0))
	}

	footprint := func(what phrase, of func(result.Footprint) []float64, noise float64) Goal {
		return Goal{
			Difference: n.compareFootprints(Server, GRPCServer, of, noise),
			contender:  Server, reference: GRPCServer, wanted: 0.7, atMost: true, what: what,
		}.decide(n.whyFootprint(Server), n.whyFootprint(GRPCServer))
	}
	binary := phrase{"stripped server binary, same features", "同じ機能を持つサーバーのバイナリ（strip 済み）"}
	idle := phrase{"RSS idle, same features", "同じ機能を持つサーバーのアイドル時 RSS"}
	return append(goals,
		footprint(binary, strippedSize, sizeNoise),
		footprint(idle, idleRSS, n.memoryNoise()))
}

// decide sets the state and the note of a measured goal; the reasons say why a side has fewer rounds than it should.
func (g Goal) decide(reasons ...phrase) Goal {
	var notes []phrase
	for _, r := range reasons {
		if r != (phrase{}) {
			notes = append(notes, r)
		}
	}
	met := g.Median >= g.wanted
	if g.atMost {
		met = g.Median <= g.wanted
	}
	switch {
	case g.Rounds == 0:
		g.State = Unknown
	case g.wanted == 0:
		g.State = Information
		notes = append(notes, phrase{"for information", "参考値"})
	case met:
		g.State = Met
	default:
		g.State = Missed
	}
	if g.wanted > 0 && g.Rounds > 0 {
		switch {
		case g.Noise == 0:
			notes = append(notes, phrase{"no control, so the noise is unknown", "対照がなく、ノイズは不明"})
		case away(g.Median/g.wanted) <= g.Noise:
			notes = append(notes, say("nearer to the goal than the noise (%s)", "目標との差はノイズ（%s）の範囲内", noise(g.Noise)))
		}
	}
	g.note = list(notes, "; ", "。")
	return g
}

// row returns the goal as people read it: what, the contender to compare with, wanted, measured, state and note.
func (g Goal) row() []phrase {
	wanted := verbatim("–")
	if g.wanted > 0 {
		sign := "≥"
		if g.atMost {
			sign = "≤"
		}
		wanted = verbatim(fmt.Sprintf("%s %.2f×", sign, g.wanted))
	}
	state := map[State]phrase{
		Unknown:     notMeasured,
		Met:         {"met", "達成"},
		Missed:      {"**not met**", "**未達**"},
		Information: {"no goal", "目標なし"},
	}[g.State]
	return []phrase{
		g.what,
		verbatim(g.contender + " / " + g.reference), wanted, g.phrase(), state, g.note,
	}
}

// why returns what kept rounds of a load from being measured, or nothing.
func (n numbers) why(c result.Case, contender string) phrase {
	l, ok := n.loads[load{c, contender}]
	if !ok || len(l.Rounds) == 0 {
		return say("%s: not in this run", "%s: この実行にはない", contender)
	}
	for _, r := range l.Rounds {
		if p := problem(r); p != "" {
			return say("%s: %d of %d rounds measured (%s)", "%s: %d/%d ラウンドのみ計測（%s）", contender,
				len(n.good(c, contender)), len(l.Rounds), p)
		}
	}
	return phrase{}
}

func (n numbers) whyFootprint(contender string) phrase {
	f, ok := n.footprint(contender)
	switch {
	case ok:
		return phrase{}
	case f.Error != "":
		return verbatim(contender + ": " + f.Error)
	default:
		return say("%s: not in this run", "%s: この実行にはない", contender)
	}
}
