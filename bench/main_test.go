//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/ttrpc-starter/bench/internal/runner"
	"example.com/ttrpc-starter/bench/result"
	"example.com/ttrpc-starter/internal/proctest"
)

var bin string // directory of the binary

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	var err error
	if bin, err = os.MkdirTemp("", ""); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	if err := proctest.Build(bin, ".", "."); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// bench is the program as go run -C bench starts it for someone who works in the directory typed.
func bench(t *testing.T, typed string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(proctest.Exe(bin, "bench"), args...)
	cmd.Env = append(os.Environ(), "PWD="+typed)
	return cmd
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string // on standard error
	}{
		{[]string{"-suite", "slow"}, 2, `-suite is "slow": want quick or full`},
		{[]string{"-contenders", "ours,soap"}, 2, `-contenders names "soap": want some of ttrpc,`},
		{[]string{"-compare", "old.json"}, 2, "-compare wants two files: -compare OLD NEW"},
		{[]string{"-compare", "", ""}, 2, "-compare wants two files"},
		{[]string{"-o", "no-such-directory/x.json"}, 1, "no-such-directory"},
		{[]string{"-compare", "no-such-file.json", "other.json"}, 1, "no-such-file.json"},
		{[]string{"-from", "no-such-file.json"}, 1, "no-such-file.json"},
		{[]string{"surplus"}, 2, "surplus"},
		{[]string{"-h"}, 0, ""},
	} {
		p := proctest.Run(t, bench(t, t.TempDir(), c.args...))
		if p.ExitCode() != c.code || !strings.Contains(p.Stderr(), c.want) {
			t.Errorf("bench %v: exit code %d, want %d with %q:\n%s", c.args, p.ExitCode(), c.code, c.want, p.Stderr())
		}
	}
}

func TestCompare(t *testing.T) {
	typed := t.TempDir()
	save := func(name string, r *result.Run) string {
		content, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(typed, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	footprint := func(size int64) *result.Run {
		return &result.Run{
			Version: result.Version, Suite: "quick", Complete: true,
			Contenders: []result.Contender{{Name: "ours", Title: "ours"}},
			Footprints: []result.Footprint{{Contender: "ours", Binary: size, Stripped: size, Packages: 1}},
		}
	}
	older, newer := save("old.json", footprint(1<<20)), save("new.json", footprint(1<<21))
	cmd := bench(t, typed, "-compare", older, newer)
	cmd.Dir = filepath.Join(typed, "bench") // where go run -C goes
	if err := os.Mkdir(cmd.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := proctest.Run(t, cmd)
	if p.ExitCode() != 0 || !strings.Contains(p.Stdout(), "2.00") {
		t.Errorf("exit code %d, want a size that has doubled:\n%s%s", p.ExitCode(), p.Stdout(), p.Stderr())
	}
	future := save("future.json", &result.Run{Version: result.Version + 1})
	p = proctest.Run(t, bench(t, typed, "-compare", filepath.Join(typed, older), filepath.Join(typed, future)))
	if p.ExitCode() != 1 || !strings.Contains(p.Stderr(), fmt.Sprintf("is of version %d", result.Version+1)) {
		t.Errorf("exit code %d, want that the file is of another version:\n%s", p.ExitCode(), p.Stderr())
	}
}

func TestInterrupt(t *testing.T) {
	// What is compiled first may take longer than anything may that is waited for below.
	contenders := slices.DeleteFunc(runner.Contenders(), func(c runner.Contender) bool { return c.Name != "raw" })
	module, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runner.Make(t.Context(), module, t.TempDir(), contenders); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "result.json")
	p := proctest.Start(t, bench(t, t.TempDir(), "-contenders", "raw", "-seed", "7", "-o", file, "-report"))
	p.WaitFor("next=\"round 2:") // so the first is over
	p.Signal(syscall.SIGINT)
	if p.ExitCode() != 1 || !strings.Contains(p.Stderr(), "interrupted: what was measured until then was kept") {
		t.Errorf("exit code %d, want 1 and why:\n%s", p.ExitCode(), p.Stderr())
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r result.Run
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	const command = "go run -C bench . -suite quick -seed 7 -contenders raw"
	if r.Complete || r.Seed != 7 || r.Command != command || len(r.Loads) == 0 {
		t.Errorf("the result is %s", content)
	}
	for _, l := range r.Loads {
		if len(l.Rounds) == 0 || l.Rounds[0].Calls == 0 && !l.Rounds[0].Unsupported {
			t.Errorf("what is kept of a load is %+v", l)
		}
	}
	for _, want := range []string{"raw socket", file} {
		if !strings.Contains(p.Stdout(), want) {
			t.Errorf("%q is not in what was printed:\n%s", want, p.Stdout())
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "README.md")); err != nil {
		t.Errorf("no report: %v", err)
	}
}
