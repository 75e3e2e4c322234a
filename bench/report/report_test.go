package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/ttrpc-starter/bench/internal/runner"
	"example.com/ttrpc-starter/bench/result"
)

const control = "control"

// runOf returns a complete run on some machine, of contenders with their names as titles.
func runOf(contenders ...string) *result.Run {
	run := &result.Run{
		Version: result.Version, Suite: "quick", Complete: true, Seed: 7, Seconds: 90, Command: "make bench",
		Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Machine: result.Machine{
			OS: "linux", Arch: "amd64", CPU: "Example CPU", CPUs: 2, GOMAXPROCS: 2, Memory: 8 << 30, Go: "go1.26.8",
		},
		Modules: []result.Module{{Path: "github.com/containerd/ttrpc", Version: "v1.2.10"}},
	}
	for _, name := range contenders {
		c := result.Contender{Name: name, Title: name}
		if name == control {
			c.ControlOf = Ours
		}
		run.Contenders = append(run.Contenders, c)
	}
	return run
}

// put adds a load with a round of one second for each rate.
func put(run *result.Run, c result.Case, contender string, rates ...int64) {
	l := result.Load{Case: c, Contender: contender}
	for i, rate := range rates {
		u := result.Usage{CPU: 400 * time.Millisecond, Allocs: 1000, Alloced: 64000, RSS: 10 << 20, PSS: 9 << 20}
		l.Rounds = append(l.Rounds, result.Round{
			Round: i + 1, Calls: rate, Seconds: 1, P50: time.Millisecond, P99: time.Millisecond, P999: time.Millisecond,
			Client: u, Server: u,
		})
	}
	run.Loads = append(run.Loads, l)
}

func starts(rss ...int64) []result.Start {
	var out []result.Start
	for _, mib := range rss {
		bytes := mib << 20
		out = append(out, result.Start{
			FirstReply: 9 * time.Millisecond, IdleRSS: bytes, IdlePSS: bytes, AfterRSS: bytes, AfterPSS: bytes,
		})
	}
	return out
}

// goal returns the goal whose description holds what and that compares with the reference.
func goal(t *testing.T, run *result.Run, what, reference string) Goal {
	t.Helper()
	for _, g := range Goals(run) {
		if strings.Contains(g.what.en, what) && g.reference == reference {
			return g
		}
	}
	t.Fatalf("no goal %q against %s", what, reference)
	return Goal{}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func markdown(t *testing.T, run *result.Run, lang Lang) string {
	t.Helper()
	page, err := Markdown(run, lang, "")
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// rowOf returns the table row of text that begins with the contender, below the line that holds the title.
func rowOf(t *testing.T, text, title, contender string) string {
	t.Helper()
	_, below, ok := strings.Cut(text, title)
	if !ok {
		t.Fatalf("no %q in\n%s", title, text)
	}
	for line := range strings.Lines(below) {
		if strings.HasPrefix(strings.TrimLeft(line, "| "), contender+" ") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("no row of %q below %q in\n%s", contender, title, text)
	return ""
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	run := runOf(Stock, Ours)
	put(run, small(1), Stock, 100, 1000, 10)
	put(run, small(1), Ours, 200, 2000, 20, 999)
	slices.Reverse(run.Loads[1].Rounds) // the order of the rounds is not their number
	g := goal(t, run, "small, 1 caller", Stock)
	if !near(g.Median, 2) || !near(g.Low, 2) || !near(g.High, 2) || g.Rounds != 3 {
		t.Errorf("ratio = %+v, want 2 in each of the 3 rounds that both have", g.Estimate)
	}
}

func TestMedianAndQuartiles(t *testing.T) {
	run := runOf(Stock, Ours)
	put(run, small(1), Stock, 100, 100, 100, 100)
	put(run, small(1), Ours, 400, 100, 200, 300)
	g := goal(t, run, "small, 1 caller", Stock)
	if !near(g.Median, 2.5) || g.Low >= 2 || g.Low < 1 || g.High <= 3 || g.High > 4 {
		t.Errorf("ratio = %+v, want a median of 2.5 and quartiles about 1.4 and 3.6", g.Estimate)
	}
	single := runOf(Stock, Ours)
	put(single, small(1), Stock, 100)
	put(single, small(1), Ours, 150)
	if g := goal(t, single, "small, 1 caller", Stock); !near(g.Median, 1.5) || !near(g.Low, 1.5) || !near(g.High, 1.5) {
		t.Errorf("ratio of a single round = %+v, want 1.5", g.Estimate)
	}
}

func TestNoise(t *testing.T) {
	steady := []int64{1000, 1000, 1000, 1000, 1000, 1000, 1000}
	tests := []struct {
		name          string
		control, ours []int64
		want          Verdict
	}{
		{"beyond it", []int64{1010, 990, 1000, 1010, 990, 1000, 1010}, nil, Better},
		{"within it", []int64{1100, 900, 1100, 900, 1100, 900, 1100}, nil, None},
		{"one disturbed round decides nothing", []int64{2000, 1000, 1010, 1000, 990, 1000, 1000}, nil, Better},
		{"without a control", nil, nil, Unjudged},
		{"rounds on both sides of 1", steady, []int64{2000, 1100, 1100, 1100, 700, 700, 700}, None},
		{"slower", steady, []int64{900, 900, 900, 900, 900, 900, 900}, Worse},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run := runOf(Stock, Ours, control)
			ours := tt.ours
			if ours == nil {
				ours = []int64{1050, 1050, 1050, 1050, 1050, 1050, 1050}
			}
			put(run, small(1), Stock, steady...)
			put(run, small(1), Ours, ours...)
			var again []int64
			for i, c := range tt.control { // relative to ours
				again = append(again, c*ours[i]/1000)
			}
			if again != nil {
				put(run, small(1), control, again...)
			}
			g := goal(t, run, "small, 1 caller", Stock)
			if g.Verdict != tt.want {
				t.Errorf("verdict on %+v with noise %.3f = %d, want %d", g.Estimate, g.Noise, g.Verdict, tt.want)
			}
			for _, row := range []string{
				rowOf(t, Text(run), "Unix socket, unary, 0 B, 1 caller", Ours),
				rowOf(t, markdown(t, run, English), "### Unix socket, unary, 0 B, relative to ttrpc", Ours),
				rowOf(t, markdown(t, run, Japanese), "### UNIX ソケット、単項呼び出し、0 B（ttrpc 比）", Ours),
			} {
				if none := strings.Contains(row, "≈"); none != (tt.want == None) {
					t.Errorf("marked as none: %v, in %q", none, row)
				}
				if unknown := strings.Contains(row, "?"); unknown != (tt.want == Unjudged) {
					t.Errorf("marked as unknown: %v, in %q", unknown, row)
				}
			}
		})
	}
}

func TestNoCaseIsQuieterThanItsRun(t *testing.T) {
	run := runOf(Stock, Ours, control)
	for k, again := range map[int]int64{1: 1000, 16: 1100, 128: 1100} {
		put(run, small(k), Stock, 1000)
		put(run, small(k), Ours, 1050)
		put(run, small(k), control, again*1050/1000)
	}
	if g := goal(t, run, "small, 1 caller", Stock); g.Verdict != None || g.Noise < 1.09 {
		t.Errorf("verdict %d with noise %.2f where the control happened to agree, want none and 1.10",
			g.Verdict, g.Noise)
	}
}

// summary returns the page's first ten lines, which hold the answer.
func summary(page string) string { return strings.Join(strings.SplitN(page, "\n", 11)[:10], "\n") }

func TestSummaryFollowsTheNumbers(t *testing.T) {
	const saved, same, worse = "**Saved", "**Not saved", "**Worse"
	line := func(page, label string) string {
		for line := range strings.Lines(summary(page)) {
			if strings.Contains(line, label) {
				return line
			}
		}
		t.Fatalf("no %q in\n%s", label, summary(page))
		return ""
	}
	build := func(small1, large, floor, connection, server int64) string {
		run := runOf(Ours, control, OursFloor, GRPC, GRPCFloor)
		for _, c := range []result.Case{small(1), unary(64<<10, 16)} {
			mine := small1
			if c.Payload > 0 {
				mine = large
			}
			put(run, c, GRPC, 1000, 1000, 1000)
			put(run, c, GRPCFloor, 1000, 1000, 1000)
			put(run, c, Ours, mine, mine, mine)
			put(run, c, control, mine, mine, mine+mine/50)
			put(run, c, OursFloor, floor, floor, floor)
		}
		run.Idle = []result.Connections{
			{Contender: Ours, Connections: 10000, RSS: connection},
			{Contender: GRPC, Connections: 10000, RSS: 200 << 20},
			{Contender: Ours, Connections: 1, RSS: 1},
			{Contender: GRPC, Connections: 1, RSS: 100},
		}
		run.Footprints = []result.Footprint{
			{Contender: Server, Binary: 1, Stripped: server << 20, Starts: starts(server)},
			{Contender: GRPCServer, Binary: 1, Stripped: 10 << 20, Starts: starts(10)},
		}
		page := markdown(t, run, English)
		if ja := markdown(t, run, Japanese); len(regexp.MustCompile(`\d\.\d\d`).FindAllString(summary(ja), -1)) !=
			len(regexp.MustCompile(`\d\.\d\d`).FindAllString(summary(page), -1)) {
			t.Errorf("the summaries have different numbers:\n%s\n%s", summary(page), summary(ja))
		}
		return page
	}
	page := build(2000, 1000, 3000, 200<<20, 5)
	for label, wants := range map[string][]string{
		saved: {
			"small calls per second: 2.00× (1 caller)", "heap floor on both: 3.00× (64 KiB, 16 callers)",
			"binary of a server with the same features: 0.50×", "(RSS) when idle: 0.50×",
		},
		same: {
			"an idle connection is no lighter: 1.00× (10,000 connections)",
			"large messages need the heap floor** (64 KiB, 16 callers: 1.00× without, 3.00× with it)",
		},
		worse:          {"nothing"},
		"Conditions":   {"linux/amd64", "Example CPU", "go1.26.8", "v1.2.10", "2026-11-22"},
		"results.json": {"](results.json)"},
	} {
		for _, want := range wants {
			if got := line(page, label); !strings.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
	}
	page = build(500, 2000, 2000, 400<<20, 20)
	for _, want := range []string{
		"small calls per second: 0.50×", "an idle connection is heavier: 2.00×", "same features: 2.00×",
		"when idle: 2.00×",
	} {
		if got := line(page, worse); !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.Contains(summary(page), "need the heap floor") {
		t.Errorf("large messages need no floor where they are twice as fast without:\n%s", summary(page))
	}
	if page := build(1000, 500, 1000, 200<<20, 5); strings.Contains(summary(page), "need the heap floor") {
		t.Errorf("the heap floor helps large messages no further than to grpc-go's rate:\n%s", summary(page))
	}
	got := line(build(2000, 2000, 2000, 100<<20, 5), saved)
	if !strings.Contains(got, "an idle connection is lighter: 0.50×") {
		t.Errorf("a connection of half the memory is not called lighter in %q", got)
	}
}

func TestGoals(t *testing.T) {
	run := runOf(Stock, Ours, StockFloor, OursFloor, GRPC, control)
	for _, name := range []string{Stock, GRPC} {
		put(run, small(128), name, 1000)
	}
	put(run, small(128), Ours, 1400)
	put(run, small(128), control, 1470)
	put(run, small(128), StockFloor, 1000)
	put(run, small(128), OursFloor, 1200)
	run.Footprints = []result.Footprint{
		{Contender: Server, Stripped: 6 << 20, Starts: starts(9, 9, 9)},
		{Contender: GRPCServer, Stripped: 10 << 20, Starts: starts(10, 10, 10)},
	}
	for _, tt := range []struct {
		what, reference string
		state           State
		ratio           float64
		note            string
	}{
		{"small, 128 callers: calls/s", Stock, Met, 1.4, "nearer to the goal than the noise (±5.0 %)"},
		{"small, 128 callers: calls/s", GRPC, Missed, 1.4, ""},
		{"small, 128 callers: CPU per call", Stock, Met, 1 / 1.4, ""},
		{"small, 128 callers, heap floor on both", StockFloor, Missed, 1.2, ""},
		{"small, 128 callers, heap floor on both", GRPCFloor, Unknown, 0, "grpc-floor: not in this run"},
		{"small, 128 callers, heap floor on ours alone", Stock, Information, 1.2, "for information"},
		{"small, 1 caller", Stock, Unknown, 0, "ours: not in this run"},
		{"stripped server binary", GRPCServer, Met, 0.6, ""},
		{"RSS idle", GRPCServer, Missed, 0.9, ""},
	} {
		g := goal(t, run, tt.what, tt.reference)
		if g.State != tt.state || !near(g.Median, tt.ratio) || !strings.Contains(g.note.en, tt.note) {
			t.Errorf("%s against %s = state %d, %.3f, %q, want %d, %.3f, %q", tt.what, tt.reference, g.State, g.Median,
				g.note.en, tt.state, tt.ratio, tt.note)
		}
		if (g.note.en == "") != (g.note.ja == "") {
			t.Errorf("note %q is %q in Japanese", g.note.en, g.note.ja)
		}
	}
	run.Footprints[1].Error = "it does not build"
	g := goal(t, run, "RSS idle", GRPCServer)
	if g.State != Unknown || !strings.Contains(g.note.en, "it does not build") {
		t.Errorf("goal without a server to compare with = state %d, %q", g.State, g.note.en)
	}
}

func TestFailuresAreShown(t *testing.T) {
	run := runOf(Stock, Ours, GRPC, "drpc", "netrpc", control)
	put(run, small(1), Stock, 1000, 1000, 1000)
	put(run, small(1), Ours, 1000, 1000, 1000)
	run.Loads[1].Rounds[1] = result.Round{Round: 2, Error: "listen: address | in use"}
	put(run, small(1), GRPC, 0, 0, 0)
	run.Loads = append(run.Loads,
		result.Load{Case: small(1), Contender: "netrpc", Rounds: []result.Round{
			{Round: 1, Unsupported: true, Error: "net/rpc has no TLS"},
		}},
		result.Load{Case: small(1), Contender: "drpc", Rounds: []result.Round{
			{Round: 1, Error: "server: exit status 2"}, {Round: 2, Error: "server: exit status 2"},
		}})
	run.Footprints = []result.Footprint{{Contender: Server, Error: "build: no space left"}}
	run.Idle = []result.Connections{{Contender: Ours, Connections: 10000, Error: "too many open files"}}
	run.InFlight = []result.InFlight{
		{Contender: Ours, Calls: 10000, Error: "timeout"},
		{Contender: "drpc", Calls: 10000, Error: "one call at a time", Unsupported: true},
		{Contender: GRPC, Calls: 10000, Limit: 20000, Reached: 10000, Answered: 10000, Seconds: 1},
	}

	reasons := []string{
		"in use", "server: exit status 2", "net/rpc has no TLS", "no call was answered", "build: no space left",
		"too many open files", "timeout", "one call at a time",
	}
	for name, tt := range map[string]struct{ page, title, failed, unsupported, missing, part string }{
		"text": {
			Text(run), "Unix socket, unary, 0 B, 1 caller",
			"failed", "not supported", "not measured", "1,000 [2/3 rounds]",
		},
		"English": {
			markdown(t, run, English), "**Unix socket, unary, 0 B, 1 caller",
			"failed", "not supported", "not measured", "1,000 [2/3 rounds]",
		},
		"Japanese": {
			markdown(t, run, Japanese), "**UNIX ソケット、単項呼び出し、0 B、並列数 1",
			"失敗", "非対応", "未計測", "1,000 [2/3 ラウンド]",
		},
	} {
		for contender, want := range map[string]string{
			"drpc": tt.failed, GRPC: tt.failed, "netrpc": tt.unsupported, control: tt.missing, Ours: tt.part,
		} {
			row := rowOf(t, tt.page, tt.title, contender)
			if !strings.Contains(row, want) {
				t.Errorf("%s: no %q in %q", name, want, row)
			}
			if contender != Ours && regexp.MustCompile(`\d`).MatchString(row) {
				t.Errorf("%s: a number of what was not measured in %q", name, row)
			}
		}
		for _, reason := range reasons {
			if !strings.Contains(tt.page, reason) {
				t.Errorf("%s does not say %q", name, reason)
			}
		}
	}
	for contender, want := range map[string]string{
		Ours: `default +10,000 +failed`, "drpc": `default +10,000 +not supported`, GRPC: `20,000 +10,000 +10,000`,
	} {
		if row := rowOf(t, Text(run), "Calls in flight", contender); !regexp.MustCompile(want).MatchString(row) {
			t.Errorf("calls in flight of %s = %q, want %q", contender, row, want)
		}
	}
	if page := markdown(t, run, English); !strings.Contains(summary(page), "Measurements that failed: 6,") {
		t.Errorf("the summary does not count 6 failures:\n%s", summary(page))
	}
	for _, table := range tables(t, markdown(t, run, English)) {
		for _, row := range table {
			if len(row) != len(table[0]) {
				t.Errorf("a reason breaks the table: %q", row)
			}
		}
	}
}

func TestInterruptedRunSaysSo(t *testing.T) {
	run := fake(1)
	run.Complete = false
	run.Loads = run.Loads[:30]
	for name, tt := range map[string]struct{ text, want string }{
		"text":     {Text(run), "interrupted"},
		"English":  {summary(markdown(t, run, English)), "interrupted"},
		"Japanese": {summary(markdown(t, run, Japanese)), "中断"},
	} {
		if !strings.Contains(tt.text, tt.want) {
			t.Errorf("%s does not say that the run was interrupted:\n%.2000s", name, tt.text)
		}
	}
}

// tables returns the tables of a page, row by row.
func tables(t *testing.T, page string) [][][]string {
	t.Helper()
	var all [][][]string
	in := false
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "|:") {
			in = false
			continue
		}
		line = strings.ReplaceAll(strings.TrimSpace(line), `\|`, "")
		if !in {
			all = append(all, nil)
			in = true
		}
		all[len(all)-1] = append(all[len(all)-1], strings.Split(strings.Trim(line, "|"), "|"))
	}
	if len(all) == 0 {
		t.Fatal("no tables")
	}
	return all
}

func TestLanguagesSayTheSame(t *testing.T) {
	for name, run := range map[string]*result.Run{"full": fake(1), "empty": runOf(Ours), "small": small3(t)} {
		en, ja := markdown(t, run, English), markdown(t, run, Japanese)
		heading := regexp.MustCompile(`(?m)^(#+) |^(<details>)|^!\[[^]]*\]\((.*)\)`)
		if diff := cmp.Diff(heading.FindAllString(strip(en), -1), heading.FindAllString(strip(ja), -1)); diff != "" {
			t.Errorf("%s: headings and charts differ (-English +Japanese):\n%s", name, diff)
		}
		number := regexp.MustCompile(`[-+±≈]? ?\d[\d,.]*`)
		a, b := tables(t, en), tables(t, ja)
		if len(a) != len(b) {
			t.Fatalf("%s: %d tables in English, %d in Japanese", name, len(a), len(b))
		}
		for i := range a {
			if len(a[i]) != len(b[i]) {
				t.Fatalf("%s: table %d has %d rows in English, %d in Japanese", name, i, len(a[i]), len(b[i]))
			}
			for j := range a[i] {
				if diff := cmp.Diff(len(a[i][j]), len(b[i][j])); diff != "" {
					t.Errorf("%s: cells of %q and %q differ", name, a[i][j], b[i][j])
					continue
				}
				for k := range a[i][j] {
					x, y := number.FindAllString(a[i][j][k], -1), number.FindAllString(b[i][j][k], -1)
					if strings.Contains(a[i][j][k], "rounds") || strings.Contains(a[i][j][k], "round ") {
						continue // the words stand in another order
					}
					if diff := cmp.Diff(x, y); diff != "" {
						t.Errorf("%s: numbers of %q and %q differ", name, a[i][j][k], b[i][j][k])
					}
				}
			}
		}
		if regexp.MustCompile(`\p{Han}|\p{Hiragana}`).MatchString(strings.ReplaceAll(en, "日本語", "")) {
			t.Errorf("%s: Japanese in the English page", name)
		}
		for _, page := range []string{en, ja, Text(run)} {
			if bad := regexp.MustCompile(`NaN|Inf|%!|<nil>`).FindString(page); bad != "" {
				t.Errorf("%s: %q in a page", name, bad)
			}
		}
	}
}

// strip removes what differs between headings and pictures by language.
func strip(page string) string { return regexp.MustCompile(`!\[[^]]*\]`).ReplaceAllString(page, "![]") }

func small3(t *testing.T) *result.Run {
	t.Helper()
	run := runOf(Stock, Ours, GRPC, control)
	for _, name := range []string{Stock, Ours, GRPC, control} {
		put(run, small(1), name, 1000)
	}
	return run
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	run := fake(3)
	findings := []byte("### What paid\n\nGathering writes.\n")
	if err := os.WriteFile(filepath.Join(dir, "findings.md"), findings, 0o644); err != nil {
		t.Fatal(err)
	}
	read := func() map[string]string {
		t.Helper()
		if err := Write(dir, run); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files[e.Name()] = string(content)
		}
		return files
	}
	files := read()
	if !strings.Contains(files["README.md"], "## Findings\n\n### What paid\n\nGathering writes.\n") {
		t.Error("the findings are not in the page")
	}
	if strings.Contains(files["README.ja.md"], "Gathering writes") {
		t.Error("findings in English stand in the Japanese page")
	}
	for _, page := range []string{"README.md", "README.ja.md"} {
		first, _, _ := strings.Cut(files[page], "\n")
		if !strings.HasPrefix(first, "<!--") || !strings.Contains(first, "make bench") {
			t.Errorf("%s begins with %q, which does not say what generates it", page, first)
		}
		shown := regexp.MustCompile(`\]\(([^)]*\.svg)\)`).FindAllStringSubmatch(files[page], -1)
		if len(shown) != 5 {
			t.Errorf("%s shows %d charts, want 5", page, len(shown))
		}
		for _, s := range shown {
			if files[s[1]] == "" {
				t.Errorf("%s shows %s, which does not exist", page, s[1])
			}
		}
	}
	if diff := cmp.Diff(files, read()); diff != "" {
		t.Errorf("written again, the same run differs:\n%s", diff)
	}
	run.Idle = nil
	files = read()
	if files["idle-connections.svg"] != "" || strings.Contains(files["README.md"], "idle-connections.svg") {
		t.Error("the chart of an earlier run is still there")
	}
	if err := Write(filepath.Join(dir, "missing"), run); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("writing into a missing directory = %v", err)
	}
	if _, err := Markdown(run, "fr", ""); err == nil || !strings.Contains(err.Error(), "fr") {
		t.Errorf("a page in French = %v", err)
	}
}

// texts returns what an SVG says, and fails if it is not XML.
func texts(t *testing.T, svg string) []string {
	t.Helper()
	var all []string
	d := xml.NewDecoder(strings.NewReader(svg))
	in := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			in = token.Name.Local == "text"
		case xml.CharData:
			if in {
				all = append(all, string(bytes.TrimSpace(token)))
			}
		case xml.EndElement:
			in = false
		}
	}
}

func TestCharts(t *testing.T) {
	dir := t.TempDir()
	run := fake(1)
	for i, l := range run.Loads {
		if l.Contender == "drpc" {
			for j := range l.Rounds {
				run.Loads[i].Rounds[j] = result.Round{Round: j + 1, Error: "it crashed"}
			}
		}
	}
	if err := Write(dir, run); err != nil {
		t.Fatal(err)
	}
	for file, wants := range map[string][]string{
		"calls-by-callers.svg": {
			"payload 0 B", "payload 64 KiB", "concurrent callers on one connection", "calls/s relative to grpc-go",
			"128", "2×", "ours", "net/rpc", "noise (control)",
		},
		"calls-by-payload.svg": {
			"1 caller", "16 callers", "payload in each direction", "1 KiB", "1 MiB", "ours with heap floor",
		},
		"cpu-per-call.svg":     {"CPU time per call, user and system (µs)", "client", "server", "grpc-go", "failed"},
		"footprint.svg":        {"size (MiB)", "RSS (MiB)", "this starter's server", "10.4 MiB"},
		"idle-connections.svg": {"RSS per connection (KiB)", "Memory per idle connection, 10,000 connections", "drpc"},
	} {
		svg, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
			continue
		}
		labels := texts(t, string(svg))
		for _, want := range wants {
			if !slices.Contains(labels, want) {
				t.Errorf("%s has no label %q, but %q", file, want, labels)
			}
		}
		if slices.Contains(labels, "ours again") {
			t.Errorf("%s shows the control as a contender", file)
		}
	}
}

func TestCompare(t *testing.T) {
	build := func(machine string, oursBy, allBy float64) *result.Run {
		run := runOf(Stock, Ours, GRPC, control)
		run.Machine.CPU = machine
		by := map[string]float64{Stock: 1, GRPC: 1, Ours: oursBy, control: oursBy}
		for _, c := range []result.Case{small(1), small(16)} {
			for _, name := range []string{Stock, Ours, GRPC, control} {
				var rates []int64
				for i := range 5 {
					f := 1 + float64(i-2)*0.01
					if name == control {
						f = 1 - float64(i-2)*0.01
					}
					rates = append(rates, int64(10000*by[name]*allBy*f))
				}
				put(run, c, name, rates...)
			}
		}
		return run
	}
	const same, other = "Example CPU", "Another CPU"
	rows := func(text string) (rows []string) {
		for line := range strings.Lines(text) {
			if strings.Contains(line, " better") || strings.Contains(line, " worse") {
				rows = append(rows, strings.TrimSpace(line))
			}
		}
		return rows
	}
	t.Run("nothing", func(t *testing.T) {
		run := fake(1)
		text := Compare(run, run)
		if len(rows(text)) > 0 || !regexp.MustCompile(`No change: ([1-9]\d*) of (\d+) numbers`).MatchString(text) {
			t.Errorf("a run compared with itself:\n%s", text)
		}
	})
	t.Run("one contender", func(t *testing.T) {
		text := Compare(build(same, 1, 1), build(same, 1.5, 1))
		if got := rows(text); len(got) == 0 || !strings.Contains(got[0], "10,000") ||
			!strings.Contains(got[0], "15,000") || !strings.Contains(got[0], "+50.0 %") ||
			slices.ContainsFunc(got, func(r string) bool {
				return strings.Contains(r, Stock) || strings.Contains(r, GRPC) || !strings.Contains(r, "better")
			}) {
			t.Errorf("ours is half as fast again, and nothing else changed:\n%s", text)
		}
		got := rows(Compare(build(same, 1.5, 1), build(same, 1, 1)))
		if len(got) == 0 || !strings.Contains(got[0], "worse") {
			t.Errorf("ours lost a third: %q", got)
		}
	})
	t.Run("within noise", func(t *testing.T) {
		if text := Compare(build(same, 1, 1), build(same, 1.015, 1)); len(rows(text)) > 0 {
			t.Errorf("1.5 %% where the control is off by 2 %%:\n%s", text)
		}
	})
	t.Run("a slow day", func(t *testing.T) {
		text := Compare(build(same, 1, 1), build(same, 1, 0.7))
		for _, row := range rows(text) {
			if strings.HasPrefix(row, "calls/s") || strings.HasPrefix(row, "CPU") {
				t.Errorf("everything is slower by the same, and that counts as a change: %s", row)
			}
		}
	})
	t.Run("another machine", func(t *testing.T) {
		text := Compare(build(same, 1, 1), build(other, 1.5, 3))
		if !strings.Contains(text, "differ in CPU: Example CPU, then Another CPU") ||
			!strings.Contains(text, "ratios to ttrpc") {
			t.Errorf("it does not say that the machines differ:\n%s", text)
		}
		if got := rows(text); len(got) == 0 ||
			!strings.Contains(got[0], "1.00×") || !strings.Contains(got[0], "1.50×") ||
			slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, GRPC) }) {
			t.Errorf("ours is half as fast again relative to ttrpc:\n%s", text)
		}
	})
	t.Run("nothing in common", func(t *testing.T) {
		after := build(other, 1, 1)
		after.Modules[0].Version = "v1.3.0"
		after.Loads = slices.DeleteFunc(after.Loads, func(l result.Load) bool { return l.Contender == GRPC })
		after.Contenders = slices.DeleteFunc(after.Contenders, func(c result.Contender) bool { return c.Name == GRPC })
		text := Compare(build(same, 1, 1), after)
		if !strings.Contains(text, "cannot be compared") ||
			!strings.Contains(text, "github.com/containerd/ttrpc v1.2.10, then v1.3.0") {
			t.Errorf("it does not say why there is no comparison:\n%s", text)
		}
	})
	t.Run("new failure", func(t *testing.T) {
		after := build(same, 1, 1)
		for i := range after.Loads {
			if after.Loads[i].Contender == Ours && after.Loads[i].Callers == 16 {
				after.Loads[i].Rounds = []result.Round{{Round: 1, Error: "crash"}}
			}
		}
		row := regexp.MustCompile(`calls/s +Unix socket, unary, 0 B, 16 callers +ours +10,000 +failed`)
		if text := Compare(build(same, 1, 1), after); !row.MatchString(text) {
			t.Errorf("a contender that fails now is not listed:\n%s", text)
		}
	})
	t.Run("sizes", func(t *testing.T) {
		before, after := build(same, 1, 1), build(same, 1, 1)
		before.Footprints = []result.Footprint{{Contender: Server, Stripped: 10 << 20, Starts: starts(10, 10, 10)}}
		after.Footprints = []result.Footprint{{Contender: Server, Stripped: 12 << 20, Starts: starts(10, 11, 10)}}
		got := rows(Compare(before, after))
		if len(got) != 1 || !strings.Contains(got[0], "stripped binary") || !strings.Contains(got[0], "+20.0 %") {
			t.Errorf("a binary that grew and memory that did not: %q", got)
		}
	})
}

func TestTablesAreInTheContendersOrder(t *testing.T) {
	run := runOf(Stock, Ours, GRPC)
	for _, name := range []string{GRPC, Stock, Ours} { // as they happened to be measured
		run.Footprints = append(run.Footprints, result.Footprint{
			Contender: name, Binary: 1, Stripped: 1, Starts: starts(1),
		})
		run.Idle = append(run.Idle, result.Connections{Contender: name, Connections: 1, RSS: 1})
		run.InFlight = append(run.InFlight, result.InFlight{Contender: name, Calls: 1})
	}
	for _, title := range []string{"Servers before and after load", "Idle connections, per", "Calls in flight on"} {
		_, below, _ := strings.Cut(Text(run), title)
		stock, ours := strings.Index(below, " ttrpc "), strings.Index(below, " ours ")
		grpc := strings.Index(below, " grpc ")
		if stock < 0 || stock > ours || ours > grpc {
			t.Errorf("%s: not in the contenders' order:\n%s", title, below)
		}
	}
	if run.Idle[0].Contender != GRPC {
		t.Error("the caller's run was changed")
	}
}

func TestNothingMeasured(t *testing.T) {
	for name, run := range map[string]*result.Run{"nothing": {}, "contenders": runOf(Stock, Ours, GRPC, control)} {
		if Text(run) == "" || Compare(run, run) == "" {
			t.Errorf("%s: no text", name)
		}
		page := markdown(t, run, English)
		if !strings.Contains(page, "No control was measured") || !strings.Contains(page, "Not measured in this run") {
			t.Errorf("%s: the page does not say that nothing was measured:\n%s", name, page)
		}
		if err := Write(t.TempDir(), run); err != nil {
			t.Error(fmt.Errorf("%s: %w", name, err))
		}
	}
}

func TestContendersAreTranslated(t *testing.T) {
	run := runOf()
	for _, c := range runner.Contenders() {
		run.Contenders = append(run.Contenders, c.Contender)
	}
	_, below, _ := strings.Cut(markdown(t, run, Japanese), "### 対象\n")
	for _, row := range tables(t, below)[0][2:] {
		if about := row[2]; !regexp.MustCompile(`\p{Hiragana}`).MatchString(about) {
			t.Errorf("no Japanese for %q: translations.go has it by its English words", about)
		}
	}
}
