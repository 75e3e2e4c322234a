// Package proctest lets tests build the project's programs, run them as real processes, and wait for their output.
package proctest

import (
	"bytes"
	"debug/buildinfo"
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

// patience is how long a test waits for an event before it fails. It is long because machines may be slow and shared. A
// test that passes never waits that long.
const patience = time.Minute

// Build builds packages of the module in root into the directory bin. Each package is a directory relative to root. The
// programs have the race detector if the test has it.
//
// Build also calls os.Stat for the module's Go files. The go command reuses a test's old result if no file has changed
// that the test imports, opens or calls Stat for. Otherwise it would not know that the test depends on these files.
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

// BuildWith builds the program of a package of the module in root, with a version of a module that it requires. That
// needs a go.mod of its own: in one build, the newest version that anything requires wins.
func BuildWith(module, version, exe, root, pkg string) error {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	mod := filepath.Join(dir, "go.mod")
	for _, args := range [][]string{
		{"mod", "edit", "-replace=" + module + "=" + module + "@" + version, mod},
		{"build", "-modfile=" + mod, "-mod=mod", "-o", exe, pkg},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		return err
	}
	for _, dep := range info.Deps {
		if dep.Path == module && dep.Replace != nil && dep.Replace.Version == version {
			return nil
		}
	}
	return fmt.Errorf("%s is not built with %s %s", exe, module, version)
}

// Socket returns the address of a unix socket in a new directory. The names of T.TempDir can be too long for a socket.
func Socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return "unix://" + filepath.ToSlash(filepath.Join(dir, "s"))
}

// Exe returns the path of the binary called name in the directory. On Windows, it adds the extension.
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

// StartFiltered starts a program that prints too much on standard error. Only the lines for which keep returns true are
// kept. keep gets one line at a time, without the line's end. It must not use the slice after it returns.
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

// Stdout returns the text that the program has printed on standard output so far.
func (p *Process) Stdout() string { s, _ := p.stdout.read(); return s }

// Stderr returns the text that the program has printed on standard error so far.
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

// output collects the bytes that are written to it, and notifies goroutines that wait for more.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // each Write closes it and makes a new one
	keep    func(line []byte) bool
	part    []byte // the start of a line that has no end yet
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
