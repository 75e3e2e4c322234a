// Bench measures what a call costs with this starter, with stock ttrpc, with grpc-go and with others, on the machine
// that it runs on.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	psutil "github.com/shirou/gopsutil/v4/process"
	"golang.org/x/perf/benchfmt"

	"example.com/ttrpc-starter/internal/cli"
)

func main() { cli.Main("bench", run) }

const synopsis = `Measures ttrpc, stock and with this starter, and others side by side, and prints a table of it.

The result has the format of Go's benchmarks. So benchstat compares two versions, if each has six results or more in its
file: golang.org/x/perf/cmd/benchstat. Progress goes to standard error.`

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("bench", synopsis)
	name := flags.String("suite", "quick", "what to measure: `quick` (two minutes) or full (a quarter of an hour)")
	only := flags.String("bench", "", "`regexp` of the names of those to measure (default all)")
	output := flags.String("o", "", "`file` to add the result to")
	olderProgram := flags.String("older", "",
		"`file` that go build ./contender/ours made of an older version, to compare with as well")
	pages := flags.String("pages", "", "measure nothing, but write the pages of this `directory` from its results.txt")
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return err
	}
	if *pages != "" {
		return writePages(*pages)
	}
	s, ok := map[string]suite{"quick": quick(), "full": full()}[*name]
	if !ok {
		return cli.Usagef("-suite is %q: want quick or full", *name)
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return cli.Usagef("-bench: %v", err)
	}
	s.cells = slices.DeleteFunc(s.cells, func(c cell) bool { return !pattern.MatchString(c.name()) })
	if !pattern.MatchString("Idle") {
		s.starts = 0
	}
	if !pattern.MatchString("Trickle") {
		s.trickle = 0
	}
	all := slices.DeleteFunc(contenders(), func(c contender) bool { return !s.measured(c) })
	if *olderProgram != "" {
		path, err := filepath.Abs(*olderProgram)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return cli.Usagef("-older: %v", err)
		}
		i := slices.IndexFunc(all, func(c contender) bool { return c.name == ours })
		all = slices.Insert(all, i+1, contender{name: older, server: path, flags: all[i].flags})
	}
	result := io.Discard
	if *output != "" {
		f, err := os.OpenFile(*output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return cli.Usagef("-o: %v", err)
		}
		defer func() { _ = f.Close() }()
		result = f
	}
	return measure(ctx, s, all, stdout, result, stderr)
}

func measure(ctx context.Context, s suite, all []contender, stdout, result, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	start := time.Now()
	progress := func(what string) {
		fmt.Fprintf(stderr, "bench: %4.0f s: %s\n", time.Since(start).Seconds(), what)
	}
	progress("build the contenders")
	versions, err := build(ctx, dir, all)
	if err != nil {
		return err
	}
	var rows []row
	busyBefore, selfBefore, from := machineBusy(), selfUsed(), time.Now()
	used, err := s.run(ctx, dir, all, progress, func(r row) error {
		rows = append(rows, r)
		return nil
	})
	if len(rows) == 0 {
		return err
	}
	busy := machineBusy() - busyBefore - used - selfUsed() + selfBefore
	others := max(0, busy.Seconds()/time.Since(from).Seconds()) // the kernel counts both in ticks
	config := machine(s, versions)
	config = append(config, setting("others-cpus", fmt.Sprintf("%.2f", others)))
	if err := errors.Join(write(result, config, rows), table(stdout, rows)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nOther processes used %.2f of %d CPUs meanwhile.\n", others, runtime.NumCPU())
	if others > float64(runtime.NumCPU())/10 {
		fmt.Fprintln(stdout, "THE MACHINE WAS LOADED: compare nothing of this with another run.")
	}
	if err != nil {
		return fmt.Errorf("what was measured until then was kept: %w", err)
	}
	return nil
}

func setting(key, value string) benchfmt.Config {
	return benchfmt.Config{Key: key, Value: []byte(value), File: true}
}

// machine returns what is known of the machine and of what was built; what is not stays away.
func machine(s suite, versions map[string]string) []benchfmt.Config {
	config := []benchfmt.Config{
		setting("goos", runtime.GOOS), setting("goarch", runtime.GOARCH), setting("go", runtime.Version()),
		setting("cpus", fmt.Sprint(runtime.NumCPU())), setting("suite", s.name),
	}
	if infos, err := cpu.Info(); err == nil && len(infos) > 0 {
		config = append(config, setting("cpu", infos[0].ModelName))
	}
	if kernel, err := host.KernelVersion(); err == nil {
		config = append(config, setting("kernel", kernel))
	}
	for _, module := range slices.Sorted(maps.Keys(versions)) {
		config = append(config, setting(filepath.Base(module)+"-version", versions[module]))
	}
	return config
}

// selfUsed returns the CPU time that this process has used.
func selfUsed() time.Duration {
	self, err := psutil.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0
	}
	times, err := self.Times()
	if err != nil {
		return 0
	}
	return time.Duration((times.User + times.System) * float64(time.Second))
}

// machineBusy returns the CPU time that all processes have used since the machine's start.
func machineBusy() time.Duration {
	times, err := cpu.Times(false)
	if err != nil || len(times) == 0 {
		return 0
	}
	t := times[0]
	return time.Duration((t.User + t.Nice + t.System + t.Irq + t.Softirq + t.Steal) * float64(time.Second))
}
