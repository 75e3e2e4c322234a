// Bench measures what a call costs with this starter, with stock ttrpc and with others, on the machine that it runs on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/ttrpc-starter/bench/internal/runner"
	"example.com/ttrpc-starter/bench/report"
	"example.com/ttrpc-starter/bench/result"
	"example.com/ttrpc-starter/internal/cli"
)

func main() { cli.Main("bench", run) }

const synopsis = `Measures ttrpc, stock and with this starter, and others side by side, and prints tables of it.

Tables go to standard output, progress to standard error. With Ctrl-C it ends early, keeps what was measured until then
and exits with 1. With -compare OLD NEW it measures nothing and says what changed from one result to another; with
-from FILE -report it writes the report again.`

// timeout is how long anything may take beyond the time that it is meant to before it counts as failed.
const timeout = 30 * time.Second

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	args, newer := cutNewer(args)
	flags := cli.NewFlagSet("bench", synopsis)
	suite := flags.String("suite", "quick",
		"what to measure: `quick` (less than two minutes) or full (less than twenty)")
	names := flags.String("contenders", "", "`names` of the contenders to measure, with commas between (default all)")
	seed := flags.Uint64("seed", 0,
		"`number` that the random order depends on; 0 takes a new one, which the result tells")
	output := flags.String("o", "", "`file` to write the result to, as JSON (default one for temporary files)")
	pages := flags.Bool("report", false, "write the report and its charts to the result's directory")
	known := flags.String("from", "", "measure nothing and take the result from this `file`")
	older := flags.String("compare", "",
		"`file` with a result to compare with the one in the file that is named after it")
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return err
	}
	compares := false
	flags.Visit(func(f *flag.Flag) { compares = compares || f.Name == "compare" })
	if compares {
		return compare(*older, newer, stdout)
	}
	if *known != "" {
		measured, err := read(*known)
		if err != nil {
			return err
		}
		return show(measured, typed(*known), *pages, stdout)
	}
	o := runner.Options{Seed: *seed, Timeout: timeout}
	var err error
	if o.Suite, err = suiteNamed(*suite); err != nil {
		return err
	}
	if o.Contenders, err = contendersNamed(*names); err != nil {
		return err
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 32 // short enough to be typed
	}
	file, err := outputFile(*output)
	if err != nil {
		return err
	}
	measured, err := measure(ctx, o, newProgress(stderr))
	if err != nil {
		return err
	}
	measured.Command = fmt.Sprintf("go run -C bench . -suite %s -seed %d", *suite, o.Seed)
	if *names != "" {
		measured.Command += " -contenders " + *names
	}
	if err := write(file, measured); err != nil {
		return err
	}
	if err := show(measured, file, *pages, stdout); err != nil {
		return err
	}
	if !measured.Complete {
		return errors.New("interrupted: what was measured until then was kept")
	}
	return nil
}

// show prints the tables of a result that is in the file, and with pages writes the report to the file's directory.
func show(r *result.Run, file string, pages bool, stdout io.Writer) error {
	fmt.Fprintf(stdout, "%s\nThe result is in %s\n", report.Text(r), file)
	if !pages {
		return nil
	}
	if err := report.Write(filepath.Dir(file), r); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "The report is in %s\n", filepath.Join(filepath.Dir(file), "README.md"))
	return nil
}

// measure builds the contenders where they are gone again afterwards, and runs them.
func measure(ctx context.Context, o runner.Options, p *progress) (*result.Run, error) {
	var err error
	if o.Module, err = module(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p.start("building the contenders")
	if o.Build, err = runner.Make(ctx, o.Module, dir, o.Contenders); err != nil {
		return nil, err
	}
	o.Progress = p.step
	return runner.Run(ctx, o)
}

// module returns the directory of the benchmark's sources.
func module(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	dir := strings.TrimSpace(string(out))
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "contender"))
	}
	if err != nil {
		return "", fmt.Errorf(
			"find the contenders' sources: %w: run it with go run -C bench . or in the directory bench", err)
	}
	return dir, nil
}

func suiteNamed(name string) (runner.Suite, error) {
	switch name {
	case "quick":
		return runner.Quick(), nil
	case "full":
		return runner.Full(), nil
	}
	return runner.Suite{}, cli.Usagef("-suite is %q: want quick or full", name)
}

func contendersNamed(names string) ([]runner.Contender, error) {
	all := runner.Contenders()
	if names == "" {
		return all, nil
	}
	var known []string
	for _, c := range all {
		known = append(known, c.Name)
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return nil, cli.Usagef("-contenders names %q: want some of %s", name, strings.Join(known, ","))
		}
	}
	return slices.DeleteFunc(all, func(c runner.Contender) bool { return !slices.Contains(wanted, c.Name) }), nil
}

// cutNewer takes what follows -compare OLD out of the arguments, as flags take one value each.
func cutNewer(args []string) (rest []string, newer string) {
	i := slices.IndexFunc(args, func(s string) bool { return s == "-compare" || s == "--compare" })
	if i < 0 || i+2 >= len(args) {
		return args, ""
	}
	return slices.Delete(slices.Clone(args), i+2, i+3), args[i+2]
}

func compare(older, newer string, stdout io.Writer) error {
	if older == "" || newer == "" {
		return cli.Usagef("-compare wants two files: -compare OLD NEW")
	}
	before, err := read(older)
	if err != nil {
		return err
	}
	after, err := read(newer)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, report.Compare(before, after))
	return err
}

func read(name string) (*result.Run, error) {
	content, err := os.ReadFile(typed(name))
	if err != nil {
		return nil, err
	}
	r := new(result.Run)
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s is not a result: %w", name, err)
	}
	if r.Version != result.Version {
		return nil, fmt.Errorf("%s is of version %d: this bench reads version %d", name, r.Version, result.Version)
	}
	return r, nil
}

// outputFile returns the file to write to, which is seen to be possible before anything is measured.
func outputFile(name string) (string, error) {
	if name == "" {
		f, err := os.CreateTemp("", "bench-*.json")
		if err != nil {
			return "", err
		}
		return f.Name(), f.Close()
	}
	name = typed(name)
	if info, err := os.Stat(filepath.Dir(name)); err != nil {
		return "", fmt.Errorf("-o: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("-o: %s is not a directory", filepath.Dir(name))
	}
	return name, nil
}

func write(file string, r *result.Run) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(content, '\n'), 0o644)
}

// typed returns the path that the user meant: go run -C bench changes the working directory, and leaves PWD as the
// shell has set it.
func typed(path string) string {
	shell := os.Getenv("PWD")
	wd, err := os.Getwd()
	if filepath.IsAbs(path) || shell == "" || err != nil {
		return path
	}
	if below, err := filepath.Rel(shell, wd); err != nil || !filepath.IsLocal(below) {
		return path // PWD is not of the shell that started this
	}
	return filepath.Join(shell, path)
}
