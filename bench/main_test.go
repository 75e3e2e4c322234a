package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/cli"
)

// TestAllContenders gives all of them all kinds of load, with the least of rounds.
func TestAllContenders(t *testing.T) {
	s := suite{
		name: "test", rounds: 1, latency: 1, starts: 2, rest: time.Millisecond, trickle: time.Millisecond,
		cells: []cell{calls(0, 2), calls(mib, 2), streams(kib, 2), latency(0, 500)},
	}
	all := contenders()
	var stdout, result bytes.Buffer
	if err := measure(t.Context(), s, all, &stdout, &result, io.Discard); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "results.txt")
	if err := os.WriteFile(file, result.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, config, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"goos", "go", "cpus", "others-cpus", "ttrpc-version", "grpc-version", "suite"} {
		if config[key] == "" {
			t.Errorf("the result does not say %s", key)
		}
	}
	var got []string
	for _, r := range rows {
		kind, _, _ := strings.Cut(r.name, "/")
		if !slices.ContainsFunc(columns[kind], func(c column) bool { _, ok := r.values[c.unit]; return ok }) {
			t.Errorf("%s has none of its columns, but %v", r.name, r.values)
		}
		if _, ok := r.values["p50-ns"]; ok != (kind == "Latency") {
			t.Errorf("%s has latencies: %t", r.name, ok)
		}
		got = append(got, r.name)
		for unit, v := range r.values {
			if v <= 0 && !strings.HasPrefix(unit, "connection") && unit != "cpu-ns/call" {
				t.Errorf("%s has %v %s", r.name, v, unit)
			}
		}
		if _, contender := r.cut(); !strings.Contains(stdout.String(), "\n"+contender+" ") {
			t.Errorf("the table has no row for %s", contender)
		}
	}
	var want []string
	for _, c := range s.cells {
		for _, contender := range all {
			none := contender.starts || c.window.Stream && contender.name == "net-rpc" ||
				c.window.Rate > 0 && contender.full
			if !none {
				want = append(want, c.name()+"/rpc="+contender.name)
			}
		}
	}
	for _, name := range []string{
		"ours", "ttrpc", "grpc-go", "connect-go", "drpc", "net-rpc", "raw", "starter", "starter-grpc",
	} {
		want = append(want, "Idle/rpc="+name)
	}
	for _, name := range []string{"grpc-go", "grpc-go-floor", "ours", "ours-no-floor"} {
		want = append(want, "Trickle/rpc="+name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the result has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-suite half", `-suite is "half": want quick or full`},
		{"-bench (", "-bench: error parsing regexp"},
		{"-older none", "-older: stat"},
		{"-o none/file", "-o: open none/file"},
		{"more", `"more"`},
	} {
		err := run(t.Context(), strings.Fields(c.args), nil, io.Discard, io.Discard)
		if _, ok := errors.AsType[*cli.UsageError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a usage error with %s", c.args, err, c.want)
		}
	}
	if err := run(t.Context(), []string{"-pages", t.TempDir()}, nil, io.Discard, io.Discard); !os.IsNotExist(err) {
		t.Errorf("-pages without results: %v", err)
	}
}

// TestKept checks that what was measured is kept when the next contender fails, or somebody stops the run.
func TestKept(t *testing.T) {
	all := slices.DeleteFunc(contenders(), func(c contender) bool { return c.server != "ttrpc" })
	s := suite{name: "test", rounds: 1, cells: []cell{calls(0, 1), {calls(0, 1).window}}}
	s.cells[1].window.Bytes = 8 * mib // more than ttrpc allows
	var result bytes.Buffer
	err := measure(t.Context(), s, all, io.Discard, &result, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "Call/bytes=8388608/callers=1: ttrpc: ") ||
		!strings.Contains(err.Error(), "what was measured until then was kept") {
		t.Errorf("the run returned %v, want an error that says what failed and what is left", err)
	}
	if !strings.Contains(result.String(), "BenchmarkCall/bytes=0/callers=1/rpc=ttrpc") {
		t.Errorf("the result is %q, want what was measured first", result.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	s = suite{name: "test", rounds: 1_000_000, cells: []cell{calls(0, 1)}}
	done := make(chan error)
	stderr, in := io.Pipe()
	go func() { done <- measure(ctx, s, all, io.Discard, io.Discard, in) }()
	for text := ""; !strings.Contains(text, "1 of 1"); {
		b := make([]byte, 100)
		n, err := stderr.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b[:n])
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the run that was stopped returned %v", err)
	}
}
