package report

import (
	"slices"

	"github.com/aclements/go-moremath/stats"

	"example.com/ttrpc-starter/bench/result"
)

// Contenders that the goals, the summary and the charts speak of.
const (
	Stock      = "ttrpc"
	StockFloor = "ttrpc-floor"
	Ours       = "ours"
	OursFloor  = "ours-floor"
	GRPC       = "grpc"
	GRPCFloor  = "grpc-floor"
	// Server and GRPCServer have footprints only: a server like the starter's own, and one with the same features on
	// grpc-go.
	Server     = "server"
	GRPCServer = "grpc-server"
)

// Estimate is what rounds say of a number: their median and, as spread, their quartiles.
type Estimate struct {
	Median, Low, High float64
	Rounds            int
}

// estimate returns an Estimate with 0 Rounds for no values.
func estimate(values []float64) Estimate {
	if len(values) == 0 {
		return Estimate{}
	}
	s := stats.Sample{Xs: values}
	return Estimate{Median: s.Quantile(0.5), Low: s.Quantile(0.25), High: s.Quantile(0.75), Rounds: len(values)}
}

// Verdict is what a difference is worth.
type Verdict int

// None is a difference that noise makes, too. Unjudged is one without a control to know the noise from.
const (
	NotMeasured Verdict = iota
	Unjudged
	None
	Better
	Worse
)

// Difference is how many times as much of a number a contender has as its reference.
type Difference struct {
	Estimate
	// Noise is the floor under which a difference counts as none: the ratio that a contender has to itself, 1 or more.
	// 0 is unknown.
	Noise   float64
	Verdict Verdict
}

// judge says what the ratios of rounds are worth. A difference counts if the median is beyond the noise and the
// quartiles are on the same side of 1.
func judge(ratios []float64, noise float64, moreIsBetter bool) Difference {
	d := Difference{Estimate: estimate(ratios), Noise: noise}
	switch {
	case d.Rounds == 0:
		d.Verdict = NotMeasured
	case noise == 0:
		d.Verdict = Unjudged
	case away(d.Median) <= noise, d.Low <= 1 && d.High >= 1:
		d.Verdict = None
	case d.Median > 1 == moreIsBetter:
		d.Verdict = Better
	default:
		d.Verdict = Worse
	}
	return d
}

// away returns how far a ratio is from 1 in either direction, as a ratio of 1 or more.
func away(ratio float64) float64 { return max(ratio, 1/ratio) }

// metric is a number of a round. It is 0 where it was not measured.
type metric struct {
	of           func(result.Round) float64
	moreIsBetter bool
}

var (
	callsPerSecond = &metric{func(r result.Round) float64 { return float64(r.Calls) / r.Seconds }, true}
	// cpuPerCall is in nanoseconds, and of both processes: a system that tells of one alone tells nothing.
	cpuPerCall = &metric{func(r result.Round) float64 {
		if r.Client.CPU <= 0 || r.Server.CPU <= 0 {
			return 0
		}
		return float64(r.Client.CPU+r.Server.CPU) / float64(r.Calls)
	}, false}
	clientCPU    = &metric{func(r result.Round) float64 { return float64(r.Client.CPU) / float64(r.Calls) }, false}
	serverCPU    = &metric{func(r result.Round) float64 { return float64(r.Server.CPU) / float64(r.Calls) }, false}
	clientAllocs = &metric{func(r result.Round) float64 { return float64(r.Client.Allocs) / float64(r.Calls) }, false}
	serverAllocs = &metric{func(r result.Round) float64 { return float64(r.Server.Allocs) / float64(r.Calls) }, false}
	allocs       = &metric{func(r result.Round) float64 {
		return float64(r.Client.Allocs+r.Server.Allocs) / float64(r.Calls)
	}, false}
	clientBytes = &metric{func(r result.Round) float64 { return float64(r.Client.Alloced) / float64(r.Calls) }, false}
	serverBytes = &metric{func(r result.Round) float64 { return float64(r.Server.Alloced) / float64(r.Calls) }, false}
	p50         = &metric{func(r result.Round) float64 { return float64(r.P50) }, false}
	p99         = &metric{func(r result.Round) float64 { return float64(r.P99) }, false}
	p999        = &metric{func(r result.Round) float64 { return float64(r.P999) }, false}
	clientRSS   = &metric{func(r result.Round) float64 { return float64(r.Client.RSS) }, false}
	serverRSS   = &metric{func(r result.Round) float64 { return float64(r.Server.RSS) }, false}
	clientPSS   = &metric{func(r result.Round) float64 { return float64(r.Client.PSS) }, false}
	serverPSS   = &metric{func(r result.Round) float64 { return float64(r.Server.PSS) }, false}
)

// numbers looks a run's numbers up.
type numbers struct {
	*result.Run
	loads    map[load]result.Load
	controls map[string]string // control by what it repeats
	floors   map[*metric]float64
}

type load struct {
	result.Case
	contender string
}

// look takes the run as it is, but for what was measured in a random order: that is put in the contenders' order.
func look(run *result.Run) numbers {
	ordered := *run
	place := func(contender string) int {
		return slices.IndexFunc(run.Contenders, func(c result.Contender) bool { return c.Name == contender })
	}
	ordered.Footprints = sorted(run.Footprints, func(f result.Footprint) int { return place(f.Contender) })
	ordered.Idle = sorted(run.Idle, func(c result.Connections) int { return place(c.Contender) })
	ordered.InFlight = sorted(run.InFlight, func(f result.InFlight) int { return place(f.Contender) })

	n := numbers{&ordered, map[load]result.Load{}, map[string]string{}, map[*metric]float64{}}
	for _, l := range run.Loads {
		n.loads[load{l.Case, l.Contender}] = l
	}
	for _, c := range run.Contenders {
		if c.ControlOf != "" {
			n.controls[c.ControlOf] = c.Name
		}
	}
	return n
}

// sorted returns a copy in which elements of the same place stay as they were.
func sorted[T any](in []T, place func(T) int) []T {
	return slices.SortedStableFunc(slices.Values(in), func(a, b T) int { return place(a) - place(b) })
}

// good returns the rounds that measured something, by their numbers. A round without a call is none: it has no rate, no
// latency and no cost of a call.
func (n numbers) good(c result.Case, contender string) map[int]result.Round {
	rounds := map[int]result.Round{}
	for _, r := range n.loads[load{c, contender}].Rounds {
		if problem(r) == "" {
			rounds[r.Round] = r
		}
	}
	return rounds
}

// problem returns why the round measured nothing.
func problem(r result.Round) string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Unsupported:
		return "unsupported"
	case r.Calls <= 0 || r.Seconds <= 0:
		return "no call was answered"
	}
	return ""
}

func (n numbers) estimate(c result.Case, contender string, m *metric) Estimate {
	var values []float64
	for _, r := range n.good(c, contender) {
		values = append(values, m.of(r))
	}
	return estimate(values)
}

// ratios returns how many times as much the contender has as the reference, for each round in which both were measured:
// what slows the machine down for a while slows both.
func (n numbers) ratios(c result.Case, contender, reference string, m *metric) []float64 {
	var ratios []float64
	references := n.good(c, reference)
	for number, r := range n.good(c, contender) {
		if ref, ok := references[number]; ok && m.of(ref) > 0 && m.of(r) > 0 {
			ratios = append(ratios, m.of(r)/m.of(ref))
		}
	}
	return ratios
}

// compare judges a contender by the noise of the case.
func (n numbers) compare(c result.Case, contender, reference string, m *metric) Difference {
	ratios := n.ratios(c, contender, reference, m)
	return judge(ratios, n.noise(c, m), m.moreIsBetter)
}

// noise returns the noise floor of a case, or 0 if no case has a control: how far the control was from what it repeats.
// That is the upper quartile of its rounds, so that a single disturbed round does not decide. It is never less than the
// whole run's floor, so that a lucky control does not decide either.
func (n numbers) noise(c result.Case, m *metric) float64 {
	return max(n.control(c, m), n.floor(m))
}

// floor returns the run's noise floor: the median over all cases with a control, or 0 if there is none.
func (n numbers) floor(m *metric) float64 {
	if f, ok := n.floors[m]; ok {
		return f // every number of a page asks for it
	}
	var floors []float64
	for _, c := range n.cases() {
		if f := n.control(c, m); f > 0 {
			floors = append(floors, f)
		}
	}
	n.floors[m] = estimate(floors).Median
	return n.floors[m]
}

// control returns how far the case's controls are from what they repeat, or 0 without one.
func (n numbers) control(c result.Case, m *metric) float64 {
	var off []float64
	for contender, control := range n.controls {
		for _, r := range n.ratios(c, control, contender, m) {
			off = append(off, away(r))
		}
	}
	if len(off) == 0 {
		return 0
	}
	if len(off) < 4 {
		return stats.Sample{Xs: off}.Quantile(1)
	}
	return stats.Sample{Xs: off}.Quantile(0.75)
}

// cases returns the run's cases in the order in which it has them.
func (n numbers) cases() []result.Case {
	var cases []result.Case
	seen := map[result.Case]bool{}
	for _, l := range n.Loads {
		if !seen[l.Case] {
			seen[l.Case] = true
			cases = append(cases, l.Case)
		}
	}
	return cases
}

// assumedNoise is the floor of numbers that are taken too rarely to know their noise from, where there is no control.
const assumedNoise = 1.1

// sizeNoise is the floor of what a build fixes: less than a percent counts as no difference.
const sizeNoise = 1.01

func (n numbers) footprint(contender string) (result.Footprint, bool) {
	for _, f := range n.Footprints {
		if f.Contender == contender {
			return f, f.Error == ""
		}
	}
	return result.Footprint{}, false
}

func strippedSize(f result.Footprint) []float64 { return []float64{float64(f.Stripped)} }

func idleRSS(f result.Footprint) []float64 {
	var values []float64
	for _, s := range f.Starts {
		values = append(values, float64(s.IdleRSS))
	}
	return values
}

// compareFootprints judges what of returns for each round; less is better.
func (n numbers) compareFootprints(contender, reference string, of func(result.Footprint) []float64, noise float64,
) Difference {
	a, okA := n.footprint(contender)
	b, okB := n.footprint(reference)
	if !okA || !okB {
		return Difference{}
	}
	return judge(pairs(of(a), of(b)), noise, false)
}

// pairs divides what both have.
func pairs(values, references []float64) []float64 {
	var ratios []float64
	for i := range min(len(values), len(references)) {
		if values[i] > 0 && references[i] > 0 {
			ratios = append(ratios, values[i]/references[i])
		}
	}
	return ratios
}

// memoryNoise is the floor of a server's idle memory, from the control if it has a footprint.
func (n numbers) memoryNoise() float64 {
	noise := 0.0
	for contender, control := range n.controls {
		d := n.compareFootprints(control, contender, idleRSS, 1)
		if d.Rounds > 0 {
			noise = max(noise, away(d.Low), away(d.High))
		}
	}
	if noise == 0 {
		return assumedNoise
	}
	return noise
}

// perConnection returns the memory of an idle connection in bytes for each measurement of so many connections.
func (n numbers) perConnection(contender string, connections int) []float64 {
	var values []float64
	for _, i := range n.Idle {
		if i.Contender == contender && i.Connections == connections && i.Error == "" && connections > 0 {
			values = append(values, float64(i.RSS)/float64(connections))
		}
	}
	return values
}

// mostConnections returns the largest number of idle connections that both contenders held, or 0.
func (n numbers) mostConnections(a, b string) int {
	most := 0
	for _, i := range n.Idle {
		if len(n.perConnection(a, i.Connections)) > 0 && len(n.perConnection(b, i.Connections)) > 0 {
			most = max(most, i.Connections)
		}
	}
	return most
}

func (n numbers) compareConnections(contender, reference string, connections int) Difference {
	noise := 0.0
	for of, control := range n.controls {
		for _, r := range pairs(n.perConnection(control, connections), n.perConnection(of, connections)) {
			noise = max(noise, away(r))
		}
	}
	return judge(pairs(n.perConnection(contender, connections), n.perConnection(reference, connections)),
		max(noise, assumedNoise), false)
}
