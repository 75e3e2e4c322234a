package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"example.com/ttrpc-starter/bench/result"
)

// grid is a table in all languages, for a terminal as well as for Markdown.
type grid struct {
	title phrase
	head  []phrase
	rows  [][]phrase
	words int // columns from the left that hold words; numbers follow
	tail  int // columns at the right that hold words again
}

func (g *grid) add(cells ...phrase) { g.rows = append(g.rows, cells) }

func (g grid) writer(lang Lang) table.Writer {
	row := func(cells []phrase) table.Row {
		out := table.Row{}
		for _, c := range cells {
			out = append(out, c.in(lang))
		}
		return out
	}
	w := table.NewWriter()
	w.AppendHeader(row(g.head))
	for _, cells := range g.rows {
		w.AppendRow(row(cells))
	}
	var columns []table.ColumnConfig
	for i := g.words; i < len(g.head)-g.tail; i++ {
		columns = append(columns, table.ColumnConfig{
			Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight,
		})
	}
	w.SetColumnConfigs(columns)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	return w
}

// markdown returns the table with an empty line before it, or what stands in its place if it is empty.
func (g grid) markdown(lang Lang) string {
	if len(g.rows) == 0 {
		return "\n" + phrase{"Not measured in this run.", "この実行では計測していません。"}.in(lang) + "\n"
	}
	return "\n" + g.writer(lang).RenderMarkdown() + "\n"
}

// terminal returns nothing for an empty table.
func (g grid) terminal() string {
	if len(g.rows) == 0 {
		return ""
	}
	return g.title.en + "\n" + g.writer(English).Render() + "\n\n"
}

func phrases(words ...string) []phrase {
	var out []phrase
	for _, w := range words {
		out = append(out, verbatim(w))
	}
	return out
}

var contenderHead = phrase{"contender", "対象"}

// contenders returns the names of those that loads are put on, in the run's order.
func (n numbers) contenders() []string {
	var names []string
	loaded, elsewhere := map[string]bool{}, map[string]bool{}
	for _, l := range n.Loads {
		loaded[l.Contender] = true
	}
	for _, f := range n.Footprints {
		elsewhere[f.Contender] = true
	}
	for _, c := range n.Contenders {
		// A contender without any result was to be measured, so its rows say that it was not.
		if loaded[c.Name] || !elsewhere[c.Name] {
			names = append(names, c.Name)
		}
	}
	for _, l := range n.Loads {
		if !slices.Contains(names, l.Contender) {
			names = append(names, l.Contender)
		}
	}
	return names
}

func (n numbers) title(name string) phrase {
	for _, c := range n.Contenders {
		if c.Name == name && c.Title != "" {
			return translated(c.Title)
		}
	}
	return verbatim(name)
}

// state returns what stands in place of numbers; ok is true if there are numbers.
func (n numbers) state(c result.Case, contender string) (instead phrase, ok bool) {
	rounds := n.loads[load{c, contender}].Rounds
	switch {
	case len(n.good(c, contender)) > 0:
		return phrase{}, true
	case len(rounds) == 0:
		return notMeasured, false
	case !slices.ContainsFunc(rounds, func(r result.Round) bool { return !r.Unsupported }):
		return unsupported, false
	default:
		return failed, false
	}
}

// part says how many rounds a number is made of, where some failed.
func (n numbers) part(c result.Case, contender string) phrase {
	good, all := len(n.good(c, contender)), len(n.loads[load{c, contender}].Rounds)
	if good == all {
		return phrase{}
	}
	return say(" [%d/%d rounds]", " [%d/%d ラウンド]", good, all)
}

// caseGrid is all about one case; wide is for pages.
func (n numbers) caseGrid(c result.Case, wide bool) grid {
	g := grid{title: say("%s (noise %s)", "%s（ノイズ %s）", describe(c), noise(n.noise(c, callsPerSecond))), words: 1}
	g.head = []phrase{
		contenderHead,
		{"calls/s", "呼び出し数/秒"},
		say("vs %s", "%s 比", n.title(Stock)), say("vs %s", "%s 比", n.title(GRPC)),
		verbatim("p50"), verbatim("p99"), verbatim("p99.9"),
		{"CPU/call, client + server", "CPU/呼び出し（クライアント + サーバー）"},
		{"allocs/call, client + server", "割り当て/呼び出し（クライアント + サーバー）"},
	}
	if wide {
		g.head = append(g.head, phrase{"bytes/call, client + server", "割り当てバイト/呼び出し（クライアント + サーバー）"},
			phrase{"RSS, client + server", "RSS（クライアント + サーバー）"}, phrase{"PSS, client + server", "PSS（クライアント + サーバー）"})
	}
	for _, name := range n.contenders() {
		if instead, ok := n.state(c, name); !ok {
			row := append([]phrase{n.title(name), instead}, slices.Repeat(phrases("–"), len(g.head)-2)...)
			g.add(row...)
			continue
		}
		number := func(m *metric, format func(float64) string) phrase {
			return verbatim(format(n.estimate(c, name, m).Median))
		}
		both := func(client, server *metric, format func(float64) string) phrase {
			a, b := n.estimate(c, name, client).Median, n.estimate(c, name, server).Median
			if a < 0 || b < 0 {
				return notMeasured
			}
			return verbatim(format(a) + " + " + format(b))
		}
		cpu := both(clientCPU, serverCPU, duration)
		if n.estimate(c, name, cpuPerCall).Median == 0 {
			cpu = notMeasured
		}
		row := []phrase{
			n.title(name),
			say("%s%s", "%s%s", number(callsPerSecond, significant), n.part(c, name)),
			n.against(c, name, Stock, callsPerSecond), n.against(c, name, GRPC, callsPerSecond),
			number(p50, duration), number(p99, duration), number(p999, duration),
			cpu, both(clientAllocs, serverAllocs, significant),
		}
		if wide {
			row = append(row, both(clientBytes, serverBytes, size), both(clientRSS, serverRSS, size),
				both(clientPSS, serverPSS, size))
		}
		g.add(row...)
	}
	return g
}

// against is a cell: the difference from the reference, which is 1 itself.
func (n numbers) against(c result.Case, contender, reference string, m *metric) phrase {
	if instead, ok := n.state(c, contender); !ok {
		return instead
	}
	if contender == reference {
		return verbatim("1")
	}
	return n.compare(c, contender, reference, m).phrase()
}

// group is the cases that differ in their callers only.
type group struct {
	transport, kind string
	payload         int
}

func groupOf(c result.Case) group { return group{c.Transport, c.Kind, c.Payload} }

func (g group) with(callers int) result.Case {
	return result.Case{Transport: g.transport, Kind: g.kind, Payload: g.payload, Callers: callers}
}

func (g group) title() phrase {
	return say("%s, %s, %s", "%s、%s、%s", transport(g.transport), kind(g.kind), payload(g.payload))
}

func (n numbers) groups() []group {
	var groups []group
	for _, c := range n.cases() {
		if g := groupOf(c); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

func (n numbers) callersOf(g group) []int {
	var callers []int
	for _, c := range n.cases() {
		if groupOf(c) == g {
			callers = append(callers, c.Callers)
		}
	}
	slices.Sort(callers)
	return callers
}

// ratioGrid is one number of a group against a reference, by callers.
func (n numbers) ratioGrid(in group, reference string, m *metric) grid {
	g := grid{title: in.title(), head: []phrase{contenderHead}, words: 1}
	last := []phrase{{"*noise floor*", "*ノイズの下限*"}}
	for _, k := range n.callersOf(in) {
		g.head = append(g.head, callers(k))
		last = append(last, noise(n.noise(in.with(k), m)))
	}
	for _, name := range n.contenders() {
		row := []phrase{n.title(name)}
		for _, k := range n.callersOf(in) {
			row = append(row, n.against(in.with(k), name, reference, m))
		}
		g.add(row...)
	}
	if len(g.rows) > 0 {
		g.add(last...)
	}
	return g
}

func (n numbers) goalGrid() grid {
	g := grid{title: phrase{"Goals", "目標"}, words: 2, tail: 2, head: []phrase{
		{"goal", "目標"}, {"ratio of", "比"}, {"wanted", "目標値"}, {"measured", "計測値"}, {"state", "結果"}, {"note", "備考"},
	}}
	for _, goal := range Goals(n.Run) {
		g.add(goal.row()...)
	}
	return g
}

func (n numbers) footprintGrid() grid {
	g := grid{title: phrase{"Servers before and after load", "負荷の前後のサーバー"}, words: 1, head: []phrase{
		{"server", "サーバー"},
		{"binary", "バイナリ"},
		{"stripped", "strip 済み"},
		{"packages", "パッケージ"},
		{"modules", "モジュール"},
		{"start to first reply", "起動から最初の応答まで"},
		{"RSS idle", "アイドル時 RSS"},
		{"PSS idle", "アイドル時 PSS"},
		{"RSS after load", "負荷後 RSS"},
		{"PSS after load", "負荷後 PSS"},
	}}
	for _, f := range n.Footprints {
		name := n.title(f.Contender)
		if f.Error != "" {
			g.add(append([]phrase{name, failed}, slices.Repeat(phrases("–"), len(g.head)-2)...)...)
			continue
		}
		start := func(of func(result.Start) float64, format func(float64) string) phrase {
			var values []float64
			for _, s := range f.Starts {
				if v := of(s); v > 0 {
					values = append(values, v)
				}
			}
			e := estimate(values)
			switch e.Rounds {
			case 0:
				return notMeasured
			case 1:
				return verbatim(format(e.Median))
			}
			return verbatim(fmt.Sprintf("%s (%s–%s)", format(e.Median), format(e.Low), format(e.High)))
		}
		g.add(name, bytesOrNot(f.Binary), bytesOrNot(f.Stripped),
			verbatim(humanize.Comma(int64(f.Packages))), verbatim(humanize.Comma(int64(f.Modules))),
			start(func(s result.Start) float64 { return float64(s.FirstReply) }, duration),
			start(func(s result.Start) float64 { return float64(s.IdleRSS) }, size),
			start(func(s result.Start) float64 { return float64(s.IdlePSS) }, size),
			start(func(s result.Start) float64 { return float64(s.AfterRSS) }, size),
			start(func(s result.Start) float64 { return float64(s.AfterPSS) }, size))
	}
	return g
}

func bytesOrNot(n int64) phrase {
	if n <= 0 {
		return notMeasured
	}
	return verbatim(size(float64(n)))
}

func (n numbers) idleGrid() grid {
	g := grid{title: phrase{"Idle connections, per connection", "アイドル接続（1 接続あたり）"}, words: 1, head: []phrase{
		contenderHead,
		{"connections", "接続数"},
		verbatim("RSS"),
		{"heap and stacks", "ヒープとスタック"},
		{"goroutines", "ゴルーチン"},
	}}
	for _, i := range n.Idle {
		name, count := n.title(i.Contender), verbatim(humanize.Comma(int64(i.Connections)))
		if i.Error != "" || i.Connections <= 0 {
			g.add(name, count, failed, verbatim("–"), verbatim("–"))
			continue
		}
		each := float64(i.Connections)
		g.add(name, count, verbatim(size(float64(i.RSS)/each)), verbatim(size(float64(i.Heap)/each)),
			verbatim(significant(float64(i.Goroutines)/each)))
	}
	return g
}

func (n numbers) inFlightGrid() grid {
	g := grid{title: phrase{"Calls in flight on one connection", "1 接続で処理待ちの呼び出し"}, words: 1, head: []phrase{
		contenderHead,
		{"server's limit", "サーバーの上限"},
		{"calls", "呼び出し"},
		{"in handlers at most", "同時処理の最大"},
		{"answered", "応答"},
		{"until the last answer", "最後の応答まで"},
		{"RSS more", "RSS の増分"},
		{"goroutines more", "ゴルーチンの増分"},
	}}
	for _, f := range n.InFlight {
		name, calls := n.title(f.Contender), verbatim(humanize.Comma(int64(f.Calls)))
		limit := phrase{"default", "既定"}
		if f.Limit > 0 {
			limit = verbatim(humanize.Comma(int64(f.Limit)))
		}
		if f.Error != "" {
			instead := failed
			if f.Unsupported {
				instead = unsupported
			}
			g.add(append([]phrase{name, limit, calls, instead}, slices.Repeat(phrases("–"), len(g.head)-4)...)...)
			continue
		}
		g.add(name, limit, calls,
			verbatim(humanize.Comma(int64(f.Reached))), verbatim(humanize.Comma(int64(f.Answered))),
			verbatim(duration(f.Seconds*1e9)), verbatim(size(float64(f.RSS))),
			verbatim(humanize.Comma(int64(f.Goroutines))))
	}
	return g
}

// failureGrid is everything that failed, each with its reason.
func (n numbers) failureGrid() grid {
	g := grid{title: phrase{"Failures", "失敗"}, words: 3}
	g.head = []phrase{contenderHead, {"what", "項目"}, {"reason", "理由"}}
	for _, l := range n.Loads {
		n.eachProblem(l, false, func(reason string, rounds []string) {
			g.add(n.title(l.Contender), say("%s; round %s", "%s、ラウンド %s", describe(l.Case), strings.Join(rounds, ", ")),
				verbatim(reason))
		})
	}
	for _, f := range n.Footprints {
		if f.Error != "" {
			g.add(n.title(f.Contender), phrase{"server before and after load", "負荷の前後のサーバー"}, verbatim(f.Error))
		}
	}
	for _, i := range n.Idle {
		if i.Error != "" {
			g.add(n.title(i.Contender), say("%s idle connections", "アイドル接続 %s 本", humanize.Comma(int64(i.Connections))),
				verbatim(i.Error))
		}
	}
	for _, f := range n.InFlight {
		if f.Error != "" && !f.Unsupported {
			g.add(n.title(f.Contender), say("%s calls in flight", "処理待ちの呼び出し %s 件", humanize.Comma(int64(f.Calls))),
				verbatim(f.Error))
		}
	}
	return g
}

// lackGrid is what contenders do not have.
func (n numbers) lackGrid() grid {
	g := grid{title: phrase{"Not supported", "非対応"}, words: 3}
	g.head = []phrase{contenderHead, {"what", "項目"}, {"reason", "理由"}}
	seen := map[[4]string]bool{}
	for _, l := range n.Loads {
		n.eachProblem(l, true, func(reason string, _ []string) {
			if key := [4]string{l.Contender, l.Transport, l.Kind, reason}; !seen[key] {
				seen[key] = true
				where := say("%s, %s", "%s、%s", transport(l.Transport), kind(l.Kind))
				g.add(n.title(l.Contender), where, verbatim(reason))
			}
		})
	}
	for _, f := range n.InFlight {
		if f.Unsupported {
			g.add(n.title(f.Contender), phrase{"calls in flight", "処理待ちの呼び出し"}, verbatim(f.Error))
		}
	}
	return g
}

// eachProblem calls do for each reason, in the order of the rounds, with the rounds that have it.
func (numbers) eachProblem(l result.Load, lacks bool, do func(reason string, rounds []string)) {
	var reasons []string
	rounds := map[string][]string{}
	for _, r := range l.Rounds {
		if p := problem(r); p != "" && r.Unsupported == lacks {
			if rounds[p] == nil {
				reasons = append(reasons, p)
			}
			rounds[p] = append(rounds[p], fmt.Sprint(r.Round))
		}
	}
	for _, p := range reasons {
		do(p, rounds[p])
	}
}

func (n numbers) contenderGrid() grid {
	g := grid{words: 3, head: []phrase{{"name", "名前"}, contenderHead, {"what it is", "説明"}, {"heap floor", "ヒープ下限"}}}
	for _, c := range n.Contenders {
		floor := verbatim("–")
		if c.HeapFloor > 0 {
			floor = verbatim(size(float64(c.HeapFloor)))
		}
		g.add(verbatim("`"+c.Name+"`"), n.title(c.Name), translated(c.About), floor)
	}
	return g
}

func (n numbers) moduleGrid() grid {
	g := grid{words: 2, head: []phrase{{"module", "モジュール"}, {"version", "バージョン"}}}
	for _, m := range n.Modules {
		g.add(verbatim(m.Path), verbatim(m.Version))
	}
	return g
}
