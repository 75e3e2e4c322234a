// Package proctest lets tests build the project's programs, run them as real processes, and wait for what they print.
package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long anything awaited may take before the test fails. It is long because machines may be slow and
// shared; a test that passes never waits for it.
const patience = time.Minute

// Build builds packages of the module in root, each named by a directory relative to it, into the directory bin. They
// have the race detector if the test has it.
//
// The go command is let know that the test depends on the module's Go files, which it does not import: it takes an old
// result for a test's when nothing has changed of what that test opened or asked for.
func Build(bin, root string, packages ...string) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".go") || d.Name() == "go.mod") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	if Race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// Socket returns the address of a unix socket in a directory of the test's own. testing's own temporary directories have
// names that can be too long for one.
func Socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return "unix://" + filepath.ToSlash(filepath.Join(dir, "s"))
}

// Exe returns the name of the binary of that name in the directory.
func Exe(dir, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(dir, name)
}

// Process is a program that runs in the background. It is killed when the test ends.
type Process struct {
	*exec.Cmd
	t      testing.TB
	stdout output
	stderr output
	ended  chan struct{}
}

// Start starts a program.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	return StartFiltered(t, cmd, nil)
}

// StartFiltered starts a program that prints more on standard error than is worth to be kept: only the lines are for
// which keep returns true. It is called with one line at a time, without the line's end, and must not hold on to it.
func StartFiltered(t testing.TB, cmd *exec.Cmd, keep func(line []byte) bool) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, t: t, ended: make(chan struct{})}
	p.stderr.keep = keep
	p.stdout.changed = make(chan struct{})
	p.stderr.changed = make(chan struct{})
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	cmd.WaitDelay = patience // for children that keep the pipes open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s printed:\n%s%s", strings.Join(cmd.Args, " "), p.Stdout(), p.Stderr())
		}
	})
	return p
}

// Run runs a program to its end and returns it.
func Run(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := Start(t, cmd)
	p.ExitCode()
	return p
}

// Stdout returns what the program has printed on standard output so far.
func (p *Process) Stdout() string { s, _ := p.stdout.read(); return s }

// Stderr returns what the program has printed on standard error so far.
func (p *Process) Stderr() string { s, _ := p.stderr.read(); return s }

// WaitFor waits until the program has printed the text on standard error. It fails the test if the program ends first.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	timeout := time.After(patience)
	for ended := false; ; {
		printed, changed := p.stderr.read()
		switch {
		case strings.Contains(printed, text):
			return
		case ended:
			p.t.Fatalf("%s ended without printing %q", p.Path, text)
		}
		select {
		case <-changed:
		case <-p.ended:
			ended = true
		case <-timeout:
			p.t.Fatalf("%s did not print %q", p.Path, text)
		}
	}
}

// ExitCode waits for the end of the program and returns its exit code, which is -1 if a signal ended it.
func (p *Process) ExitCode() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(10 * patience):
		p.t.Fatalf("%s did not end", p.Path)
		return -1
	}
}

// Ended returns a channel that is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends the program a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// output collects what is written to it and tells who waits for more.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed, and made anew, by each Write
	keep    func(line []byte) bool
	part    []byte // the start of a line for keep
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	if o.keep == nil {
		return o.buf.Write(b)
	}
	o.part = append(o.part, b...)
	lines := o.part
	for {
		line, rest, found := bytes.Cut(lines, []byte("\n"))
		if !found {
			break
		}
		if o.keep(line) {
			o.buf.Write(line)
			o.buf.WriteByte('\n')
		}
		lines = rest
	}
	o.part = append(o.part[:0], lines...)
	return len(b), nil
}

func (o *output) read() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String(), o.changed
}
