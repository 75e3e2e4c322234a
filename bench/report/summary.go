package report

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"
	"golang.org/x/mod/semver"

	"example.com/ttrpc-starter/bench/result"
)

// claim is something that the summary always says: the verdict decides in which of its lines.
type claim struct {
	Difference
	topic phrase // claims of one topic share it
	when  phrase // what tells them apart, or nothing
	// instead of the topic, where "no lighter" says it better than a list of what has not changed.
	same, less, more phrase
}

var (
	smallCalls = phrase{"small calls per second", "小さなメッセージの呼び出し数/秒"}
	smallCPU   = phrase{"CPU time per small call", "小さなメッセージ 1 呼び出しあたりの CPU 時間"}
	largeCalls = phrase{"large calls per second", "大きなメッセージの呼び出し数/秒"}
	floorCalls = phrase{
		"large calls per second with the heap floor on both", "双方にヒープ下限を設定したときの大きなメッセージの呼び出し数/秒",
	}
	binarySize = phrase{"the stripped binary of a server with the same features", "同じ機能を持つサーバーの strip 済みバイナリ"}
	idleMemory = phrase{"its memory (RSS) when idle", "そのサーバーのアイドル時メモリー（RSS）"}
)

func (n numbers) loadClaims(reference, floorReference string) []claim {
	var claims []claim
	add := func(
		topic phrase, contender, reference string, m *metric, when func(result.Case) phrase, cases ...result.Case,
	) {
		for _, c := range cases {
			difference := n.compare(c, contender, reference, m)
			claims = append(claims, claim{Difference: difference, topic: topic, when: when(c)})
		}
	}
	who := func(c result.Case) phrase { return callers(c.Callers) }
	what := func(c result.Case) phrase { return say("%s, %s", "%s・%s", payload(c.Payload), callers(c.Callers)) }
	large := []result.Case{unary(64<<10, 16), unary(1<<20, 1)}
	add(smallCalls, Ours, reference, callsPerSecond, who, small(1), small(16), small(128))
	add(smallCPU, Ours, reference, cpuPerCall, who, small(1), small(16), small(128))
	add(largeCalls, Ours, reference, callsPerSecond, what, large...)
	add(floorCalls, OursFloor, floorReference, callsPerSecond, what, large...)
	return claims
}

func (n numbers) connectionClaim(reference string) claim {
	most := n.mostConnections(Ours, reference)
	return claim{
		Difference: n.compareConnections(Ours, reference, most),
		topic:      phrase{"memory of an idle connection", "アイドル接続のメモリー"},
		same:       phrase{"an idle connection is no lighter", "アイドル接続は軽くならない"},
		less:       phrase{"an idle connection is lighter", "アイドル接続が軽い"},
		more:       phrase{"an idle connection is heavier", "アイドル接続が重い"},
		when:       say("%s connections", "%s 接続", humanize.Comma(int64(most))),
	}
}

// grpcClaims is what there is to say of a move from grpc-go.
func (n numbers) grpcClaims() []claim {
	return append(n.loadClaims(GRPC, GRPCFloor),
		claim{Difference: n.compareFootprints(Server, GRPCServer, strippedSize, sizeNoise), topic: binarySize},
		claim{Difference: n.compareFootprints(Server, GRPCServer, idleRSS, n.memoryNoise()), topic: idleMemory},
		n.connectionClaim(GRPC))
}

// with says the claims of a verdict in one sentence, or returns nothing if there is none.
func with(claims []claim, verdict Verdict) phrase {
	var topics []phrase
	said := map[phrase][]phrase{}
	for _, c := range claims {
		if c.Verdict != verdict {
			continue
		}
		topic := c.topic
		for v, p := range map[Verdict]phrase{None: c.same, Better: c.less, Worse: c.more} {
			if v == verdict && p != (phrase{}) {
				topic = p
			}
		}
		if !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
		number := ratio(c.Median)
		switch {
		case verdict == NotMeasured:
			number = c.when
		case c.when != phrase{}:
			number = say("%s (%s)", "%s（%s）", number, c.when)
		}
		said[topic] = append(said[topic], number)
	}
	var parts []phrase
	for _, t := range topics {
		numbers := list(said[t], ", ", "、")
		if numbers == (phrase{}) {
			parts = append(parts, t)
			continue
		}
		parts = append(parts, say("%s: %s", "%s %s", t, numbers))
	}
	return list(parts, "; ", "。")
}

// summary returns what stands at the top: what is saved, what is not, and under which conditions.
func (n numbers) summary() []phrase {
	claims, grpc := n.grpcClaims(), n.title(GRPC)
	nothing := phrase{"nothing", "なし"}
	or := func(p phrase) phrase {
		if p == (phrase{}) {
			return nothing
		}
		return p
	}
	stock := append(n.loadClaims(Stock, StockFloor), n.connectionClaim(Stock))
	lines := []phrase{
		say("**Saved or gained against %s** (times as much; 1× is equal): %s.", "**%s より減るもの、速くなるもの**（%[1]s の何倍か）: %s。",
			grpc, or(with(claims, Better))),
		say("**Not saved**, the difference is within the noise: %s%s.", "**変わらないもの**（差はノイズの範囲内）: %s%s。",
			or(with(claims, None)), n.floorNeeded(GRPC, GRPCFloor)),
		say("**Worse than %s:** %s.", "**%s に劣るもの**: %s。", grpc, or(with(claims, Worse))),
		say("**Against %s:** *better:* %s. *No difference:* %s. *Worse:* %s.",
			"**%s との比較**: *良くなるもの* %s。*変わらないもの* %s。*悪くなるもの* %s。",
			n.title(Stock), or(with(stock, Better)), or(with(stock, None)), or(with(stock, Worse))),
	}
	if unjudged := with(claims, Unjudged); unjudged != (phrase{}) {
		lines = append(lines, say("**Against %s, noise unknown:** %s.", "**%s との比較（ノイズ不明）**: %s。", grpc, unjudged))
	}
	if missing := with(claims, NotMeasured); missing != (phrase{}) {
		lines = append(lines, say("**Not measured against %s:** %s.", "**%s との比較で未計測のもの**: %s。", grpc, missing))
	}
	return append(lines, n.conditions())
}

// floorNeeded says so where large messages are faster with the heap floor only.
func (n numbers) floorNeeded(reference, floorReference string) phrase {
	var cases []phrase
	for _, c := range []result.Case{unary(64<<10, 16), unary(1<<20, 1)} {
		without := n.compare(c, Ours, reference, callsPerSecond)
		floor := n.compare(c, OursFloor, floorReference, callsPerSecond)
		if floor.Verdict == Better && (without.Verdict == None || without.Verdict == Worse) {
			cases = append(cases, say("%s, %s: %s without, %s with it", "%s・%s: なし %s、あり %s",
				payload(c.Payload), callers(c.Callers), ratio(without.Median), ratio(floor.Median)))
		}
	}
	if len(cases) == 0 {
		return phrase{}
	}
	return say("; **large messages need the heap floor** (%s)", "。**大きなメッセージにはヒープ下限が必要**（%s）", list(cases, "; ", "、"))
}

// version is the newest of a module: the servers of the starter and of the benchmark may be built with different ones.
func (n numbers) version(path string) string {
	newest := "?"
	for _, m := range n.Modules {
		if m.Path == path && (newest == "?" || semver.Compare(m.Version, newest) > 0) {
			newest = m.Version
		}
	}
	return newest
}

func (n numbers) conditions() phrase {
	m := n.Machine
	p := say("**Conditions:** %s/%s, %s, %d CPUs, GOMAXPROCS %d, governor %s, %s of memory, kernel %s; "+
		"%s, ttrpc %s, grpc-go %s; %s, suite `%s`, medians of up to %d rounds; client and server on this one machine.",
		"**条件**: %s/%s、%s、CPU %d 個、GOMAXPROCS %d、ガバナー %s、メモリー %s、カーネル %s、%s、ttrpc %s、grpc-go %s。"+
			"%s 実行、スイート `%s`、最大 %d ラウンドの中央値。クライアントとサーバーは同じ 1 台で動作。",
		m.OS, m.Arch, m.CPU, m.CPUs, m.GOMAXPROCS, m.Governor, size(float64(m.Memory)), m.Kernel, m.Go,
		n.version("github.com/containerd/ttrpc"), n.version("google.golang.org/grpc"),
		n.Started.UTC().Format("2006-01-02"), n.Suite, n.rounds())
	for _, note := range n.warnings() {
		p = say("%s **%s**", "%s**%s**", p, note)
	}
	return p
}

// warnings is what readers must know before they believe a number.
func (n numbers) warnings() []phrase {
	var warnings []phrase
	if !n.Complete {
		warnings = append(warnings, phrase{
			"The run was interrupted: what is missing was not measured.", "この実行は中断されており、欠けている値は未計測です。",
		})
	}
	if n.floor(callsPerSecond) == 0 {
		warnings = append(warnings, phrase{
			"No control was measured: the noise is unknown, and no difference is judged.",
			"対照を計測していないためノイズが分からず、差を判定していません。",
		})
	}
	if failures := len(n.failureGrid().rows); failures > 0 {
		warnings = append(warnings,
			say("Measurements that failed: %d, listed below.", "失敗した計測が %d 件あり、下に示します。", failures))
	}
	return warnings
}

// rounds returns the most rounds that a load has.
func (n numbers) rounds() int {
	most := 0
	for _, l := range n.Loads {
		most = max(most, len(l.Rounds))
	}
	return most
}

// window returns the seconds of a measured round.
func (n numbers) window() string {
	var seconds []float64
	for _, l := range n.Loads {
		for _, r := range l.Rounds {
			if problem(r) == "" {
				seconds = append(seconds, r.Seconds)
			}
		}
	}
	return fmt.Sprintf("%.1f s", estimate(seconds).Median)
}
