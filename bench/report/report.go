// Package report says what a run of the benchmark means: tables for a terminal, a page in two languages with charts,
// and what changed between two runs. All of it is computed from the raw rounds each time, so that it always fits them.
package report

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"example.com/ttrpc-starter/bench/result"
)

// Data is the file, in the directory of the pages, that holds the run. The caller writes it.
const Data = "results.json"

// language is a page's file, and the file of what people add to it.
type language struct{ page, findings string }

var languages = map[Lang]language{
	English:  {"README.md", "findings.md"},
	Japanese: {"README.ja.md", "findings.ja.md"},
}

// Write writes README.md, README.ja.md and their charts into dir, which must exist and is where the caller keeps the
// run as Data. What people found stands in findings.md and findings.ja.md there and becomes part of the pages; neither
// file is needed. Charts of earlier runs that this run has no numbers for are removed.
func Write(dir string, run *result.Run) error {
	charts, err := look(run).charts()
	if err != nil {
		return err
	}
	drawn := map[string]bool{}
	for _, c := range charts {
		drawn[c.file] = true
		if err := os.WriteFile(filepath.Join(dir, c.file), c.svg, 0o644); err != nil {
			return fmt.Errorf("write a chart: %w", err)
		}
	}
	for _, file := range chartFiles {
		if drawn[file] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old chart: %w", err)
		}
	}
	for lang, l := range languages {
		findings, err := os.ReadFile(filepath.Join(dir, l.findings))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the findings: %w", err)
		}
		page, err := Markdown(run, lang, string(findings))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, l.page), []byte(page), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// Text returns the run as tables for a terminal. It is in English and ends with what failed.
func Text(run *result.Run) string {
	n := look(run)
	var b strings.Builder
	for _, w := range n.warnings() {
		fmt.Fprintf(&b, "! %s\n\n", w.en)
	}
	for _, c := range n.cases() {
		b.WriteString(n.caseGrid(c, false).terminal())
	}
	for _, g := range []grid{
		n.footprintGrid(), n.idleGrid(), n.inFlightGrid(), n.goalGrid(), n.lackGrid(), n.failureGrid(),
	} {
		b.WriteString(g.terminal())
	}
	m := n.Machine
	fmt.Fprintf(&b, "%s, %d CPUs, %s/%s, %s. Ratios are medians over rounds, with quartiles; ≈ is within the noise "+
		"and counts as none.\n", m.CPU, m.CPUs, m.OS, m.Arch, m.Go)
	return strings.ReplaceAll(b.String(), "**", "")
}

//go:embed report.tmpl
var page string

// titled is a table below its heading.
type titled struct {
	Title string
	Grid  grid
}

// Markdown returns the report as a page, for the directory that has Data and the charts. Findings is Markdown that
// people wrote; with headings of the third level and below it fits in. Empty findings have no heading.
func Markdown(run *result.Run, lang Lang, findings string) (string, error) {
	if _, ok := languages[lang]; !ok {
		return "", fmt.Errorf("report: no language %q", lang)
	}
	n := look(run)
	charts, err := n.charts()
	if err != nil {
		return "", err
	}
	type picture struct{ File, Name, Caption string }
	type cases struct {
		Title string
		Grids []titled
	}
	data := struct {
		Command, FindingsFile, Data                                               string
		Summary                                                                   []string
		Goals, Footprints, Idle, InFlight, Contenders, Modules                    grid
		Missed, Rounds                                                            int
		Charts                                                                    []picture
		Findings                                                                  string
		Rates, CPU                                                                []titled
		Cases                                                                     []cases
		Seed                                                                      uint64
		Server, GRPCServer, Window, NoiseRate, NoiseCPU, LoadStart, LoadEnd, Took string
		Failures, Lacks                                                           []grid
	}{
		Command: run.Command, FindingsFile: languages[lang].findings, Data: Data,
		Goals: n.goalGrid(), Footprints: n.footprintGrid(), Idle: n.idleGrid(), InFlight: n.inFlightGrid(),
		Contenders: n.contenderGrid(), Modules: n.moduleGrid(), Rounds: n.rounds(),
		Findings: strings.TrimSpace(findings), Seed: run.Seed, Window: n.window(),
		Server: n.title(Server).in(lang), GRPCServer: n.title(GRPCServer).in(lang),
		NoiseRate: noise(n.floor(callsPerSecond)).in(lang), NoiseCPU: noise(n.floor(cpuPerCall)).in(lang),
		LoadStart: average(run.Machine.LoadStart).in(lang), LoadEnd: average(run.Machine.LoadEnd).in(lang),
		Took: (time.Duration(run.Seconds) * time.Second).String(),
	}
	for _, line := range n.summary() {
		data.Summary = append(data.Summary, line.in(lang))
	}
	for _, g := range Goals(run) {
		if g.State == Missed {
			data.Missed++
		}
	}
	for _, c := range charts {
		data.Charts = append(data.Charts, picture{c.file, c.name.in(lang), c.caption.in(lang)})
	}
	for _, in := range n.groups() {
		for _, reference := range []string{GRPC, Stock} {
			title := say("%s, relative to %s", "%s（%s 比）", in.title(), n.title(reference)).in(lang)
			data.Rates = append(data.Rates, titled{title, n.ratioGrid(in, reference, callsPerSecond)})
			data.CPU = append(data.CPU, titled{title, n.ratioGrid(in, reference, cpuPerCall)})
		}
		all := cases{Title: in.title().in(lang)}
		for _, k := range n.callersOf(in) {
			g := n.caseGrid(in.with(k), true)
			all.Grids = append(all.Grids, titled{g.title.in(lang), g})
		}
		data.Cases = append(data.Cases, all)
	}
	if g := n.failureGrid(); len(g.rows) > 0 {
		data.Failures = []grid{g}
	}
	if g := n.lackGrid(); len(g.rows) > 0 {
		data.Lacks = []grid{g}
	}
	t, err := template.New("report").Funcs(template.FuncMap{
		"t":     func(en, ja string, args ...any) string { return say(en, ja, args...).in(lang) },
		"table": func(g grid) string { return g.markdown(lang) },
	}).Parse(page)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return b.String(), nil
}

// average is a load average.
func average(load float64) phrase {
	if load < 0 {
		return phrase{"unknown", "不明"}
	}
	return verbatim(significant(load))
}
