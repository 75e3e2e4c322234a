package report

import (
	"fmt"
	"slices"
	"strings"

	"example.com/ttrpc-starter/bench/result"
)

// Compare returns, in English and for a terminal, what changed from one run to another: per case and contender calls/s,
// CPU, allocations and memory, and the sizes of binaries. What is within the noise is counted as no change and not
// listed. Runs of different machines, Go versions or suites are compared by their ratios to a contender that has not
// changed.
func Compare(before, after *result.Run) string {
	c := comparison{before: look(before), after: look(after)}
	var b strings.Builder
	fmt.Fprintf(&b, "before: %s\nafter:  %s\n\n", c.before.origin(), c.after.origin())
	for _, w := range slices.Concat(named("before", c.before.warnings()), named("after", c.after.warnings())) {
		fmt.Fprintf(&b, "! %s\n", w)
	}
	for _, d := range versions(before, after) {
		fmt.Fprintf(&b, "! a module differs: %s\n", d)
	}
	c.anchor = c.same()
	differences := conditions(before, after)
	for _, d := range differences {
		fmt.Fprintf(&b, "! the runs differ in %s\n", d)
	}
	switch {
	case len(differences) == 0 && c.anchor != "":
		fmt.Fprintf(&b,
			"A change of calls/s or CPU no larger than that of %s, the same code in both, counts as noise.\n",
			c.title(c.anchor))
	case len(differences) > 0 && c.anchor == "":
		b.WriteString("\nThe numbers cannot be compared: no contender is the same code in both runs.\n")
		return b.String()
	case len(differences) > 0:
		c.relative = true
		fmt.Fprintf(&b, "So the numbers are ratios to %s, within each run.\n", c.title(c.anchor))
	}
	b.WriteString("\n")
	changes := grid{title: verbatim("Changes"), words: 3, tail: 1}
	changes.head = phrases("number", "where", "contender", "before", "after", "change", "noise", "")
	same, all := 0, 0
	for _, item := range c.items() {
		old, oldOK := item.before.estimate()
		now, nowOK := item.after.estimate()
		if !oldOK && !nowOK {
			continue
		}
		all++
		cells := phrases(item.number, item.where, item.contender)
		if !oldOK || !nowOK {
			state := func(s series, e Estimate, ok bool) string {
				if !ok {
					return s.instead.en
				}
				return c.format(item, e.Median)
			}
			states := phrases(state(item.before, old, oldOK), state(item.after, now, nowOK), "–", "–", "")
			changes.add(append(cells, states...)...)
			continue
		}
		ratio := now.Median / old.Median
		floor := max(item.noise, away(old.Low/old.Median), away(old.High/old.Median), away(now.Low/now.Median),
			away(now.High/now.Median))
		if away(ratio) <= floor {
			same++
			continue
		}
		verdict := "worse"
		if ratio > 1 == item.moreIsBetter {
			verdict = "better"
		}
		if item.unjudged {
			verdict = "noise unknown"
		}
		changes.add(append(cells, phrases(c.format(item, old.Median), c.format(item, now.Median),
			fmt.Sprintf("%+.1f %%", (ratio-1)*100), noise(floor).en, verdict)...)...)
	}
	b.WriteString(changes.terminal())
	fmt.Fprintf(&b, "No change: %d of %d numbers.\n", same, all)
	return b.String()
}

// comparison is two runs and how they are compared.
type comparison struct {
	before, after numbers
	anchor        string // a contender that is the same code in both
	relative      bool   // to the anchor
}

// item is a number that both runs may have.
type item struct {
	number, where, contender string
	before, after            series
	noise                    float64
	unjudged, moreIsBetter   bool
	write                    func(float64) string
}

// series is a run's share of an item; instead is what is said where it has no values.
type series struct {
	values  []float64
	instead phrase
}

func (s series) estimate() (Estimate, bool) {
	values := slices.DeleteFunc(slices.Clone(s.values), func(v float64) bool { return v <= 0 })
	e := estimate(values)
	return e, e.Rounds > 0
}

func (c comparison) format(i item, f float64) string {
	if c.relative {
		return times(f)
	}
	return i.write(f)
}

// items returns everything that there is to compare.
func (c comparison) items() []item {
	var items []item
	for _, m := range []struct {
		name string
		*metric
		write  func(float64) string
		drifts bool // with the machine
	}{
		{"calls/s", callsPerSecond, significant, true},
		{"CPU/call", cpuPerCall, duration, true},
		{"allocs/call", allocs, significant, false},
		{"server's RSS", serverRSS, size, false},
	} {
		for _, in := range union(c.before.cases(), c.after.cases()) {
			for _, name := range union(c.before.contenders(), c.after.contenders()) {
				if c.relative && name == c.anchor {
					continue
				}
				i := item{
					number: m.name, where: describe(in).en, contender: c.title(name),
					moreIsBetter: m.moreIsBetter, write: m.write,
					before: c.load(c.before, in, name, m.metric), after: c.load(c.after, in, name, m.metric),
				}
				old, now := c.before.noise(in, m.metric), c.after.noise(in, m.metric)
				i.noise, i.unjudged = max(sizeNoise, old, now), old == 0 || now == 0
				if m.drifts && !c.relative && c.anchor != "" {
					i.noise = max(i.noise, c.drift(in, m.metric))
				}
				items = append(items, i)
			}
		}
	}
	for _, m := range []struct {
		name  string
		of    func(result.Footprint) []float64
		noise float64
	}{
		{"stripped binary", strippedSize, sizeNoise},
		{"RSS idle", idleRSS, max(c.before.memoryNoise(), c.after.memoryNoise())},
	} {
		for _, name := range union(c.before.footprintNames(), c.after.footprintNames()) {
			if c.relative && name == c.footprintAnchor(name) {
				continue
			}
			items = append(items, item{
				number: m.name, where: "server", contender: c.title(name), noise: m.noise, write: size,
				before: c.footprint(c.before, name, m.of), after: c.footprint(c.after, name, m.of),
			})
		}
	}
	return items
}

func (c comparison) title(name string) string {
	if t := c.after.title(name).en; t != name {
		return t
	}
	return c.before.title(name).en
}

func (c comparison) load(n numbers, in result.Case, contender string, m *metric) series {
	instead, _ := n.state(in, contender)
	if instead == (phrase{}) {
		instead = notMeasured // the round is good, the number is not there
	}
	if c.relative {
		return series{n.ratios(in, contender, c.anchor, m), instead}
	}
	var values []float64
	for _, r := range n.good(in, contender) {
		values = append(values, m.of(r))
	}
	return series{values, instead}
}

// drift returns how much the anchor, which did not change, seems to have.
func (c comparison) drift(in result.Case, m *metric) float64 {
	old, now := c.before.estimate(in, c.anchor, m), c.after.estimate(in, c.anchor, m)
	if old.Median <= 0 || now.Median <= 0 {
		return 0
	}
	return away(now.Median / old.Median)
}

func (c comparison) footprintAnchor(name string) string {
	if name == Server || name == GRPCServer {
		return GRPCServer
	}
	return c.anchor
}

func (c comparison) footprint(n numbers, name string, of func(result.Footprint) []float64) series {
	f, ok := n.footprint(name)
	if !ok {
		if f.Error != "" {
			return series{instead: failed}
		}
		return series{instead: notMeasured}
	}
	if c.relative {
		anchor, _ := n.footprint(c.footprintAnchor(name))
		return series{pairs(of(f), of(anchor)), notMeasured}
	}
	return series{of(f), notMeasured}
}

func (n numbers) footprintNames() []string {
	var names []string
	for _, f := range n.Footprints {
		names = append(names, f.Contender)
	}
	return names
}

// same returns a contender that is the same code in both runs, or nothing.
func (c comparison) same() string {
	for _, a := range []struct{ contender, module string }{
		{Stock, "github.com/containerd/ttrpc"}, {GRPC, "google.golang.org/grpc"}, {"raw", ""},
	} {
		if slices.Contains(c.before.contenders(), a.contender) && slices.Contains(c.after.contenders(), a.contender) &&
			(a.module == "" || c.before.version(a.module) == c.after.version(a.module)) {
			return a.contender
		}
	}
	return ""
}

// origin returns where a run comes from.
func (n numbers) origin() string {
	return fmt.Sprintf("%s, suite %s, %s, %d CPUs, %s", n.Started.UTC().Format("2006-01-02 15:04 MST"), n.Suite,
		n.Machine.CPU, n.Machine.CPUs, n.Machine.Go)
}

// conditions returns what makes the numbers of two runs differ by itself.
func conditions(before, after *result.Run) []string {
	var out []string
	a, b := before.Machine, after.Machine
	for _, d := range []struct {
		name     string
		old, now any
	}{
		{"suite", before.Suite, after.Suite},
		{"operating system", a.OS, b.OS},
		{"architecture", a.Arch, b.Arch},
		{"kernel", a.Kernel, b.Kernel},
		{"CPU", a.CPU, b.CPU},
		{"number of CPUs", a.CPUs, b.CPUs},
		{"GOMAXPROCS", a.GOMAXPROCS, b.GOMAXPROCS},
		{"governor", a.Governor, b.Governor},
		{"memory", size(float64(a.Memory)), size(float64(b.Memory))},
		{"Go", a.Go, b.Go},
	} {
		if d.old != d.now {
			out = append(out, fmt.Sprintf("%s: %v, then %v", d.name, d.old, d.now))
		}
	}
	return out
}

// versions returns the modules whose versions differ.
func versions(before, after *result.Run) []string {
	var out []string
	old, now := look(before), look(after)
	for _, m := range union(before.Modules, after.Modules) {
		a, b := old.version(m.Path), now.version(m.Path)
		if d := fmt.Sprintf("%s %s, then %s", m.Path, a, b); a != b && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

func named(run string, warnings []phrase) []string {
	var out []string
	for _, w := range warnings {
		out = append(out, run+": "+w.en)
	}
	return out
}

// union returns the elements of a, then those of b that a lacks.
func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
