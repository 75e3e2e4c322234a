package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// row is a line of the result: what was measured of one contender.
type row struct {
	name   string // of the benchmark, with the contender
	rounds int
	values map[string]float64 // by unit
}

// cut returns the benchmark's name without the contender's, and the contender's.
func (r row) cut() (name, contender string) {
	name, contender, _ = strings.Cut(r.name, "/rpc=")
	return name, contender
}

// write writes rows in the format of Go's benchmarks: https://golang.org/design/14313-benchmark-format
func write(w io.Writer, config []benchfmt.Config, rows []row) error {
	out := benchfmt.NewWriter(w)
	for _, r := range rows {
		result := &benchfmt.Result{Config: config, Name: benchfmt.Name(r.name), Iters: r.rounds}
		for _, unit := range slices.Sorted(maps.Keys(r.values)) {
			result.Values = append(result.Values, benchfmt.Value{Value: significant(r.values[unit]), Unit: unit})
		}
		if err := out.Write(result); err != nil {
			return err
		}
	}
	return nil
}

// read reads what write wrote.
func read(file string) (rows []row, config map[string]string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	config = map[string]string{}
	in := benchfmt.NewReader(f, file)
	for in.Scan() {
		switch r := in.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, nil, r
		case *benchfmt.Result:
			values := map[string]float64{}
			for _, v := range r.Values {
				if v.OrigUnit != "" { // the reader makes seconds of nanoseconds
					v.Value, v.Unit = v.OrigValue, v.OrigUnit
				}
				values[v.Unit] = v.Value
			}
			rows = append(rows, row{r.Name.String(), r.Iters, values})
			for _, c := range r.Config {
				config[c.Key] = string(c.Value)
			}
		}
	}
	return rows, config, in.Err()
}

// significant rounds to four digits, which is more than any measurement here has.
func significant(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// column is a column of the tables.
type column struct {
	unit   string
	scale  float64 // of what is shown
	en, ja string
}

// columns are those of the benchmarks of one kind, which is the first part of their names.
var columns = map[string][]column{
	"Call":   loadColumns,
	"Stream": loadColumns,
	"Latency": {
		{"p50-ns", 1e-3, "p50, µs", "p50（µs）"},
		{"p99-ns", 1e-3, "p99, µs", "p99（µs）"},
		{"p99.9-ns", 1e-3, "p99.9, µs", "p99.9（µs）"},
		{"cpu-ns/call", 1e-3, "CPU a call, µs", "1 回の CPU 時間（µs）"},
	},
	"Idle": {
		{"start-ms", 1, "start, ms", "起動（ms）"},
		{"binary-MiB", 1, "program, MiB", "プログラム（MiB）"},
		{"rss-MiB", 1, "RSS after one call, MiB", "1 回呼び出した後の RSS（MiB）"},
		{"rested-rss-MiB", 1, "RSS after a load, MiB", "負荷が去った後の RSS（MiB）"},
		{"connection-KiB", 1, "RSS of a connection, KiB", "接続 1 本の RSS（KiB）"},
	},
	"Trickle": {{"rss-MiB", 1, "RSS, MiB", "RSS（MiB）"}},
}

var loadColumns = []column{
	{"calls/s", 1, "calls/s", "呼び出し/秒"},
	{"x-ttrpc", 1, "stock ttrpc is 1", "素の ttrpc を 1 として"},
	{"x-grpc-go", 1, "grpc-go is 1", "grpc-go を 1 として"},
	{"x-older", 1, "older is 1", "旧版を 1 として"},
	{"cpu-ns/call", 1e-3, "CPU a call, µs", "1 回の CPU 時間（µs）"},
	{"rss-MiB", 1, "RSS of the server, MiB", "サーバーの RSS（MiB）"},
}

// present returns the columns that some of the rows have. All rows are of one kind.
func present(rows []row) []column {
	kind, _, _ := strings.Cut(rows[0].name, "/")
	var some []column
	for _, c := range columns[kind] {
		if slices.ContainsFunc(rows, func(r row) bool { _, ok := r.values[c.unit]; return ok }) {
			some = append(some, c)
		}
	}
	return some
}

var english = message.NewPrinter(language.English) // Japanese writes numbers alike

// text returns a value, with its interval if it has one.
func (c column) text(r row) string {
	value, ok := r.values[c.unit]
	if !ok {
		return "–"
	}
	if low, ok := r.values[c.unit+"-low"]; ok {
		return fmt.Sprintf("%.2f (%.2f–%.2f)", value, low, r.values[c.unit+"-high"])
	}
	return digits(value * c.scale)
}

func digits(v float64) string { return english.Sprint(number.Decimal(v, number.Precision(3))) }

// table prints rows as a table for each benchmark.
func table(w io.Writer, rows []row) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for len(rows) > 0 {
		name, _ := rows[0].cut()
		end := slices.IndexFunc(rows, func(r row) bool { other, _ := r.cut(); return other != name })
		if end < 0 {
			end = len(rows)
		}
		group := rows[:end]
		rows = rows[end:]
		fmt.Fprintf(out, "\n%s", name)
		for _, c := range present(group) {
			fmt.Fprintf(out, "\t%s", c.en)
		}
		for _, r := range group {
			_, contender := r.cut()
			fmt.Fprintf(out, "\n%s", contender)
			for _, c := range present(group) {
				fmt.Fprintf(out, "\t%s", c.text(r))
			}
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}
