package main

import (
	"bytes"
	"embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

//go:embed page
var pageFiles embed.FS

// names are those of the contenders in the pages: English, Japanese.
var names = map[string][2]string{
	ours:            {"ours", "本プロジェクト"},
	"ours-no-floor": {"ours, no heap floor", "本プロジェクト（ヒープ下限なし）"},
	stock:           {"stock ttrpc", "素の ttrpc"},
	control:         {"stock ttrpc again (control)", "素の ttrpc をもう 1 組（対照）"},
	grpcGo:          {"grpc-go", "grpc-go"},
	"grpc-go-floor": {"grpc-go with our heap floor", "grpc-go＋本プロジェクトのヒープ下限"},
	"connect-go":    {"connect-go", "connect-go"},
	"drpc":          {"drpc", "drpc"},
	"net-rpc":       {"net/rpc", "net/rpc"},
	"raw":           {"raw socket", "ソケットのみ"},
	"starter":       {"the starter's server", "本プロジェクトのサーバー"},
	"starter-grpc":  {"the same features on grpc-go", "同じ機能を grpc-go で"},
}

// page has what the templates of one language use.
type page struct {
	rows   []row
	config map[string]string
	lang   int // index into names
}

// writePages writes the pages and charts of a directory from the results that are there, and the table of the READMEs
// two directories above.
func writePages(dir string) error {
	rows, config, err := read(filepath.Join(dir, "results.txt"))
	if err != nil {
		return err
	}
	for lang, suffix := range []string{"", ".ja"} {
		p := &page{rows, config, lang}
		for name, c := range charts() {
			drawn, err := p.draw(c)
			if err == nil {
				err = p.execute(filepath.Join(dir, name+suffix+".svg"), "chart.svg.tmpl", drawn)
			}
			if err != nil {
				return err
			}
		}
		if err := p.execute(filepath.Join(dir, "README"+suffix+".md"), "page"+suffix+".md.tmpl", p.config); err != nil {
			return err
		}
		readme := filepath.Join(dir, "..", "..", "README"+suffix+".md")
		if err := p.insert(readme, "readme"+suffix+".md.tmpl"); err != nil {
			return err
		}
	}
	return nil
}

func (p *page) execute(file, name string, data any) error {
	text, err := p.render(name, data)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func (p *page) render(name string, data any) ([]byte, error) {
	t, err := template.New(name).Funcs(template.FuncMap{
		"v": p.value, "ratio": p.ratio, "table": p.table, "cells": p.cells,
		"add": func(a, b int) int { return a + b },
	}).ParseFS(pageFiles, "page/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, data)
	return out.Bytes(), err
}

// insert replaces what is between two comments of a file.
func (p *page) insert(file, name string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const begin, end = "<!-- make bench writes this -->\n", "<!-- until here -->\n"
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the results: want %q and %q", file, begin, end)
	}
	text, err := p.render(name, p.config)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(before+begin+string(text)+end+after), 0o644)
}

func (p *page) row(name string) (row, error) {
	i := slices.IndexFunc(p.rows, func(r row) bool { return r.name == name })
	if i < 0 {
		return row{}, fmt.Errorf("the results have no %s: measure the full suite", name)
	}
	return p.rows[i], nil
}

// value returns the text of one value of a benchmark.
func (p *page) value(name, unit string) (string, error) {
	r, err := p.row(name)
	if err != nil {
		return "", err
	}
	kind, _, _ := strings.Cut(name, "/")
	for _, c := range columns[kind] {
		if c.unit == unit {
			return c.text(r), nil
		}
	}
	return digits(r.values[unit]), nil
}

// ratio returns what a value of one contender is as a multiple of the same of another one.
func (p *page) ratio(name, unit, one, other string) (string, error) {
	a, err := p.row(name + "/rpc=" + one)
	if err != nil {
		return "", err
	}
	b, err := p.row(name + "/rpc=" + other)
	return fmt.Sprintf("%.2f", a.values[unit]/b.values[unit]), err
}

// table returns a table of a benchmark: a row for each contender.
func (p *page) table(name string) (string, error) {
	var rows []row
	for _, r := range p.rows {
		if n, _ := r.cut(); n == name {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return "", fmt.Errorf("the results have no %s: measure the full suite", name)
	}
	var out strings.Builder
	head, rule := "| |", "|---|"
	for _, c := range present(rows) {
		head, rule = head+" "+[]string{c.en, c.ja}[p.lang]+" |", rule+"---|"
	}
	fmt.Fprintf(&out, "%s\n%s\n", head, rule)
	for _, r := range rows {
		_, contender := r.cut()
		fmt.Fprintf(&out, "| %s |", names[contender][p.lang])
		for _, c := range present(rows) {
			fmt.Fprintf(&out, " %s |", c.text(r))
		}
		out.WriteByte('\n')
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// load is a row of the table of all loads.
type load struct {
	Name, Size string
	Callers    int
}

// cells returns the loads of every size and every number of callers.
func (p *page) cells() []load {
	var cells []load
	for _, bytes := range sizes {
		for _, callers := range callerCounts {
			cells = append(cells, load{calls(bytes, callers).name(), sizeText(bytes), callers})
		}
	}
	return cells
}

func sizeText(bytes int) string {
	switch {
	case bytes >= mib:
		return fmt.Sprintf("%d MiB", bytes/mib)
	case bytes >= kib:
		return fmt.Sprintf("%d KiB", bytes/kib)
	}
	return fmt.Sprint(bytes)
}

// chart is what a bar chart shows: groups of bars, each group of one benchmark. Texts are English, Japanese.
type chart struct {
	title  [2]string
	groups []group
}

// group is a value of a benchmark for some contenders.
type group struct {
	label      [2]string
	name, unit string
	scale      float64
	contenders []string
}

func charts() map[string]chart {
	callers := chart{title: [2]string{
		"Small calls per second: grpc-go is 1", "小さな呼び出しの数/秒（grpc-go を 1 とした値）",
	}}
	for _, n := range callerCounts {
		callers.groups = append(callers.groups, group{
			[2]string{plural(n, "caller"), fmt.Sprintf("並列数 %d", n)},
			calls(0, n).name(), "x-grpc-go", 1,
			[]string{ours, stock, "net-rpc", "drpc", "connect-go"},
		})
	}
	bySize := chart{title: [2]string{
		"Calls per second with 16 callers: grpc-go is 1", "並列数 16 の呼び出しの数/秒（grpc-go を 1 とした値）",
	}}
	for _, bytes := range sizes {
		label := sizeText(bytes)
		bySize.groups = append(bySize.groups, group{
			[2]string{label, label},
			calls(bytes, 16).name(), "x-grpc-go", 1,
			[]string{ours, "ours-no-floor", stock, "grpc-go-floor"},
		})
	}
	three := []string{ours, stock, grpcGo}
	memory := chart{title: [2]string{"Memory of the server: RSS, MiB", "サーバーのメモリー（RSS、MiB）"}}
	for _, g := range []struct {
		en, ja, name string
		contenders   []string
	}{
		{"with all features, idle", "全機能、アイドル時", "Idle", []string{"starter", "starter-grpc"}},
		{"idle", "アイドル時", "Idle", three},
		{"1 KiB, 128 callers", "1 KiB、並列数 128", calls(kib, 128).name(), three},
		{"64 KiB, 16 callers", "64 KiB、並列数 16", calls(64*kib, 16).name(), three},
		{"1 MiB, 1 caller", "1 MiB、並列数 1", calls(mib, 1).name(), three},
	} {
		memory.groups = append(memory.groups, group{[2]string{g.en, g.ja}, g.name, "rss-MiB", 1, g.contenders})
	}
	late := latency(kib, rates[len(rates)-1])
	latencies := chart{title: [2]string{
		fmt.Sprintf("Latency at %s calls of 1 KiB a second: µs", digits(late.window.Rate)),
		fmt.Sprintf("毎秒 %s 回、1 KiB の呼び出しのレイテンシー（µs）", digits(late.window.Rate)),
	}}
	for _, quantile := range []string{"p50", "p99"} {
		latencies.groups = append(latencies.groups, group{
			[2]string{quantile, quantile}, late.name(), quantile + "-ns", 1e-3, three,
		})
	}
	return map[string]chart{"callers": callers, "sizes": bySize, "memory": memory, "latency": latencies}
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// drawing is a chart with places for all that is in it, in pixels. Its axis starts at zero.
type drawing struct {
	Title  string
	Ticks  []mark
	Labels []mark
	Bars   []bar
	Height int
}

type mark struct {
	At   int
	Text string
}

type bar struct {
	Y, Width          int
	Class, Name, Text string
}

const (
	barsLeft  = 260 // where bars start, as the template has it
	barsWidth = 400 // of the longest one
	barStep   = 20
)

func (p *page) draw(c chart) (*drawing, error) {
	d := &drawing{Title: c.title[p.lang], Height: 50}
	var values []float64
	highest := 0.0
	for _, g := range c.groups {
		d.Labels = append(d.Labels, mark{d.Height + 14, g.label[p.lang]})
		d.Height += barStep
		for _, contender := range g.contenders {
			r, err := p.row(g.name + "/rpc=" + contender)
			if err != nil {
				return nil, err
			}
			v := r.values[g.unit] * g.scale
			values, highest = append(values, v), max(highest, v)
			text := digits(v)
			if strings.HasPrefix(g.unit, "x-") {
				text = fmt.Sprintf("%.2f", v) // as in the tables
			}
			d.Bars = append(d.Bars, bar{d.Height, 0, contender, names[contender][p.lang], text})
			d.Height += barStep
		}
		d.Height += barStep / 2
	}
	for i, v := range values {
		d.Bars[i].Width = int(math.Round(v / highest * barsWidth))
	}
	if highest <= 0 {
		return nil, fmt.Errorf("nothing was measured for the chart %q", d.Title)
	}
	step := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, part := range []float64{2, 5} {
		if highest/step < part {
			step /= 2
		}
	}
	for x := 0.0; x <= highest; x += step {
		d.Ticks = append(d.Ticks, mark{barsLeft + int(math.Round(x/highest*barsWidth)), digits(x)})
	}
	return d, nil
}
