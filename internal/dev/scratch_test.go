//go:build unix

package dev

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// scratch returns a copy of the project without its history and binaries.
func scratch(t *testing.T) copied {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := proctest.Copy(dir, "../.."); err != nil {
		t.Fatal(err)
	}
	return copied{t, dir}
}

// copied is a scratch copy.
type copied struct {
	t   *testing.T
	dir string
}

func (c copied) path(file string) string { return filepath.Join(c.dir, file) }

func (c copied) read(file string) string {
	c.t.Helper()
	b, err := os.ReadFile(c.path(file))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

func (c copied) write(file, content string) {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Dir(c.path(file)), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.path(file), []byte(content), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// replace replaces a text that must be there.
func (c copied) replace(file, old, now string) {
	c.t.Helper()
	before := c.read(file)
	if !strings.Contains(before, old) {
		c.t.Fatalf("%s has no %q", file, old)
	}
	c.write(file, strings.Replace(before, old, now, 1))
}

func (c copied) remove(file string) {
	c.t.Helper()
	if err := os.RemoveAll(c.path(file)); err != nil {
		c.t.Fatal(err)
	}
}

// command is a command in the copy. Its environment has no variables of git or of GitHub Actions.
func (c copied) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT") && !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PWD="+c.dir, "GIT_CEILING_DIRECTORIES="+filepath.Dir(c.dir))
	return cmd
}

// run runs a command that must exit with the code and returns what it printed.
func (c copied) run(code int, name string, args ...string) string {
	c.t.Helper()
	p := proctest.Run(c.t, c.command(name, args...))
	out := p.Stdout() + p.Stderr()
	if got := p.ExitCode(); got != code {
		c.t.Fatalf("%s %s: exit code %d, want %d\n%s", name, strings.Join(args, " "), got, code, out)
	}
	return out
}

// commit makes the copy a git checkout with everything committed.
func (c copied) commit() {
	c.t.Helper()
	c.run(0, "git", "init", "--quiet", "--initial-branch=main")
	c.run(0, "git", "add", "--all")
	c.run(0, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=all")
}

// files returns the contents of all files of the copy but what git and builds write.
func (c copied) files() map[string]string {
	c.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (path == c.path(".git") || path == c.path("bin")) {
			return fs.SkipDir
		} else if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return files
}

func (c copied) wantUnchanged(before map[string]string) {
	c.t.Helper()
	after := c.files()
	for file, content := range after {
		if was, ok := before[file]; !ok {
			c.t.Errorf("%s was added", file)
		} else if was != content {
			c.t.Errorf("%s was changed", file)
		}
	}
	for file := range before {
		if _, ok := after[file]; !ok {
			c.t.Errorf("%s was removed", file)
		}
	}
}

func wantPrinted(t *testing.T, out, want string) {
	t.Helper()
	if !strings.Contains(out, want) {
		t.Errorf("%q was not printed:\n%s", want, out)
	}
}
