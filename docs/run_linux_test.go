package docs

import (
	"bytes"
	"fmt"
	"go/format"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
)

// patience is how long a command, or the start of a server, may take. The first ones build buf.
const patience = 4 * time.Minute

// TestPages does what the pages say: each block in order, in a copy of the project, with one shell for a page. The
// Japanese pages have the same blocks: see TestLanguages. The first words of a block say what is done with it:
//
//	sh              the commands are run, and must succeed
//	sh fails CODE   the last one must fail with the exit code
//	sh background   they start something that runs until the next heading of level 2, and then ends well on SIGINT
//	console         the commands after "$ " are run, and must print what follows: see match
//	LANGUAGE FILE   the text is written to the file
//	LANGUAGE >> FILE
//	                the text is put at the file's end
//	diff            the text is a change that is applied
//
// A block below the comment <!-- not run: REASON --> is none of that, and a picture (mermaid) is
// not run. Every other block is an error.
func TestPages(t *testing.T) {
	for _, p := range pages(t) {
		if len(p.blocks()) == 0 || strings.HasSuffix(p.name, ".ja.md") {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			proctest.Program(t, "bash")
			if curl.Match(p.src) {
				proctest.Program(t, "curl")
			}
			r := newReader(t)
			part := ""
			for _, b := range p.blocks() {
				if b.inPart != part {
					r.stopBackground()
					part = b.inPart
				}
				r.where = fmt.Sprintf("%s:%d", p.name, b.line)
				if b.unrun == "" && b.word(0) != "mermaid" {
					r.do(b)
				}
				if t.Failed() {
					return // what follows builds upon it
				}
			}
			r.stopBackground()
		})
	}
}

var curl = regexp.MustCompile(`(?m)^\$ curl `)

// reader is somebody who does what a page says.
type reader struct {
	t          *testing.T
	where      string
	shell      *shell
	background []*started
	ports      map[string]string // those of the page, and what is taken in their place
}

var port = regexp.MustCompile(`\b(localhost|127\.0\.0\.1):(\d{4,5})\b`)

// freePorts takes another port, as a reader would, where something listens at one of the page.
func (r *reader) freePorts(text string) string {
	r.t.Helper()
	return port.ReplaceAllStringFunc(text, func(address string) string {
		host, number, _ := strings.Cut(address, ":")
		if r.ports[number] == "" {
			l, err := net.Listen("tcp", address)
			if err != nil {
				l, err = net.Listen("tcp", host+":0")
			}
			if err != nil {
				r.t.Fatal(err)
			}
			_, r.ports[number], _ = net.SplitHostPort(l.Addr().String())
			_ = l.Close()
		}
		return host + ":" + r.ports[number]
	})
}

func newReader(t *testing.T) *reader {
	t.Helper()
	parent, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	project := filepath.Join(parent, "ttrpc-starter")
	if err := proctest.Copy(project, root); err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, shell: startShell(t, project), ports: map[string]string{}}
}

func (r *reader) do(b block) {
	r.t.Helper()
	b.text = r.freePorts(b.text)
	switch kind, what := b.word(0), b.word(1); {
	case kind == "sh" && what == "background":
		r.start(b.text)
	case kind == "sh":
		want := "0"
		if what == "fails" {
			want = b.word(2)
		}
		if out, code := r.shell.run(b.text); code != want {
			r.t.Errorf("%s: exit code %s, want %s:\n%s", r.where, code, want, out)
		}
	case kind == "console":
		r.console(b.text)
	case kind == "diff":
		r.apply(b.text)
	case what == ">>":
		file := b.word(2)
		before, err := os.ReadFile(filepath.Join(r.shell.dir(), file))
		if err != nil {
			r.t.Fatalf("%s: %v", r.where, err)
		}
		r.write(file, string(before)+b.text)
	case what != "":
		r.write(what, b.text)
	default:
		r.t.Errorf("%s: nothing says what is to be done with the block", r.where)
	}
}

// console runs commands and compares what they print.
func (r *reader) console(text string) {
	r.t.Helper()
	for _, part := range strings.Split("\n"+text, "\n$ ")[1:] {
		command, want, _ := strings.Cut(strings.TrimSuffix(part, "\n"), "\n")
		for strings.HasSuffix(command, "\\") {
			var more string
			more, want, _ = strings.Cut(want, "\n")
			command += "\n" + more
		}
		if out, code := r.shell.run(command); !match(strings.TrimSpace(out), strings.TrimSpace(want)) {
			r.t.Errorf("%s: %s\nprinted, with exit code %s:\n%s\nwant:\n%s", r.where, command, code, out, want)
		}
	}
}

var changing = regexp.MustCompile(
	`\d\d:\d\d:\d\d\.\d+` + // the time of day
		`|\d+(?:\.\d+)?(?:ns|µs|ms)\b` + // how long a call took
		`|/(?:tmp|run|var)/[\w./-]+|\d+\.\d+s\b|peer\.pid=\d+|127\.0\.0\.1:\d+`)

// match reports whether got is what a page shows, where … stands for anything, on a line of its own for any number of
// lines, and times, temporary files and numbers of processes change. Lines that begin with the name of a program, as in
// "server | ", need the order only in which that program prints them.
func match(got, want string) bool {
	wants, gots := byProgram(want), byProgram(got)
	for program := range wants {
		var pattern strings.Builder
		for line := range strings.Lines(wants[program]) {
			if line == "…\n" {
				pattern.WriteString(`(?:.*\n)?`)
				continue
			}
			pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
		}
		if !regexp.MustCompile(`(?s)^` + pattern.String() + `$`).MatchString(gots[program]) {
			return false
		}
	}
	return true
}

var program = regexp.MustCompile(`^\w+ \| `)

// byProgram returns the lines of each program. A line … is one of each.
func byProgram(text string) map[string]string {
	all := map[string]string{"": ""}
	for line := range strings.Lines(text + "\n") {
		all[program.FindString(line)] = ""
	}
	for line := range strings.Lines(changing.ReplaceAllString(text, "<$>") + "\n") {
		if line == "…\n" {
			for name := range all {
				all[name] += line
			}
			continue
		}
		all[program.FindString(line)] += line
	}
	return all
}

func (r *reader) write(file, text string) {
	r.t.Helper()
	if strings.HasSuffix(file, ".go") {
		if tidy, err := format.Source([]byte(text)); err != nil || string(tidy) != text {
			r.t.Errorf("%s: gofmt would change %s, %v", r.where, file, err)
		}
	}
	path := filepath.Join(r.shell.dir(), file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) apply(text string) {
	r.t.Helper()
	cmd := exec.Command("git", "apply", "-")
	cmd.Dir, cmd.Stdin = r.shell.dir(), strings.NewReader(text)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(cmd.Dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Errorf("%s: the change does not apply: %v\n%s", r.where, err, out)
	}
}

// shell is bash, which ends at the first command that fails.
type shell struct {
	t      *testing.T
	stdin  io.Writer
	output *output
	file   string // has the commands that run now
}

func startShell(t *testing.T, dir string) *shell {
	t.Helper()
	tmp := t.TempDir()
	cmd := exec.Command("bash")
	cmd.Dir = dir
	cmd.Env = environment(dir, tmp)
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // for what it has left running
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &shell{t, stdin, out, filepath.Join(tmp, "commands")}
}

// environment is that of somebody who has just logged in: sockets of their own, and nothing of make's.
func environment(dir, runtime string) (env []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "GIT") && !slices.Contains([]string{
			"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GOFLAGS", "TTRPC_ADDRESS", "XDG_RUNTIME_DIR", "TEST_REQUIRE",
		}, name) {
			env = append(env, v)
		}
	}
	return append(env, "PWD="+dir, "XDG_RUNTIME_DIR="+runtime, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir),
		"GIT_AUTHOR_NAME=Reader", "GIT_AUTHOR_EMAIL=reader@example.com",
		"GIT_COMMITTER_NAME=Reader", "GIT_COMMITTER_EMAIL=reader@example.com")
}

const mark = "\x01the exit code is "

// run runs commands, and returns what they print, and the exit code.
func (s *shell) run(commands string) (out, code string) {
	s.t.Helper()
	// In a subshell, variables and directories would be lost. The trap ends the file at the first failure.
	text := "trap 'code=$?; trap - ERR; return $code' ERR\n" + commands + "\ntrap - ERR\n"
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.output.reset()
	fmt.Fprintf(s.stdin, ". %q </dev/null; printf '\\001the exit code is %%s\\n' $?\n", s.file)
	out = s.output.wait(s.t, func(text string) bool {
		_, rest, ok := strings.Cut(text, mark)
		return ok && strings.HasSuffix(rest, "\n")
	})
	out, code, _ = strings.Cut(out, mark)
	return out, strings.TrimSpace(code)
}

// dir returns the shell's working directory.
func (s *shell) dir() string {
	s.t.Helper()
	out, _ := s.run("pwd")
	return strings.TrimSpace(out)
}

// started is what runs in another terminal.
type started struct {
	cmd    *exec.Cmd
	output *output
}

// start runs commands in another terminal, and waits until the last has started, which our programs say.
func (r *reader) start(commands string) {
	r.t.Helper()
	dir := r.shell.dir()
	cmd := exec.Command("bash", "-ec", commands)
	cmd.Dir = dir
	cmd.Env = environment(dir, filepath.Dir(r.shell.file))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to stop all of them
	s := &started{cmd, newOutput()}
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.background = append(r.background, s)
	r.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	s.output.wait(r.t, func(text string) bool { return strings.Contains(text, " start ") })
}

// stopBackground presses Ctrl-C in the other terminals.
func (r *reader) stopBackground() {
	r.t.Helper()
	for _, s := range r.background {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT)
		if err := s.cmd.Wait(); err != nil {
			r.t.Errorf("%s: %s: %v\n%s", r.where, s.cmd.Args[2], err, s.output.text())
		}
	}
	r.background = nil
}

// output is what a program has printed.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Reset()
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait waits until the output is what it should be.
func (o *output) wait(t *testing.T, done func(string) bool) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		text := o.text()
		if done(text) {
			return text
		}
		select {
		case <-o.changed:
		case <-timeout:
			t.Fatalf("after %v, there is only:\n%s", patience, text)
		}
	}
}
