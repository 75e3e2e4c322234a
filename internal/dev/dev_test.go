//go:build unix

// Package dev tests the programs below it, and what the README promises of `make`, on scratch copies of the project.
package dev

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
)

const example = "gen/example/v1/example.pb.go"

// scratch returns a copy of the project without its history and binaries.
func scratch(t *testing.T) copied {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := os.DirFS("../..")
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".git" || path == "bin":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // .git is a file in a linked work tree
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, path), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, path), content, info.Mode())
	})
	if err != nil {
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

// command is a command in the copy, in an environment in which neither git nor GitHub Actions show through.
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

// files returns the contents of all files of the copy.
func (c copied) files() map[string]string {
	c.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/.git/") {
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

func TestCheckGenerated(t *testing.T) {
	const proto = "proto/example/v1/example.proto"
	// The first run of all may have to build buf, which the ones side by side would each do anew.
	start := time.Now()
	scratch(t).run(0, "make", "check-generated")
	t.Logf("the first check took %v", time.Since(start).Round(time.Millisecond))
	for _, c := range []struct {
		name string
		git  bool // make the copy a checkout, before the change
		edit func(copied)
		want []string // in what a failing check prints; none: the check passes
	}{
		{"clean, no checkout", false, func(copied) {}, nil},
		{"clean, checkout", true, func(copied) {}, nil},
		{"unrelated work", true, func(c copied) {
			c.write("notes.txt", "todo")
			c.replace("README.md", "# ", "# My ")
		}, nil},
		{"changed proto", false, func(c copied) {
			c.replace(proto, "string bar = 2;", "string bar = 2;\n  string baz = 3;")
		}, []string{example + ": changed", "+++ b/" + example, "Baz", "make generate"}},
		{"new proto in a new directory", true, func(c copied) {
			c.write("proto/other/v1/other.proto", "syntax = \"proto3\";\npackage other.v1;\nmessage Other {}\n")
		}, []string{"gen/other/v1/other.pb.go: missing"}},
		{"deleted proto", true, func(c copied) {
			c.write("proto/other/v1/other.proto", "syntax = \"proto3\";\npackage other.v1;\nmessage Other {}\n")
			c.run(0, "make", "generate")
			c.remove("proto/other")
		}, []string{"gen/other/v1/other.pb.go: extra"}},
		{"renamed proto", true, func(c copied) {
			if err := os.Rename(c.path(proto), c.path("proto/example/v1/sample.proto")); err != nil {
				c.t.Fatal(err)
			}
		}, []string{example + ": extra", "gen/example/v1/sample.pb.go: missing"}},
		{"edited by hand", false, func(c copied) {
			c.write(example, c.read(example)+"// mine\n")
		}, []string{example + ": changed", "// mine"}},
		{"line ends", true, func(c copied) {
			c.write(example, strings.ReplaceAll(c.read(example), "\n", "\r\n"))
		}, []string{example + ": changed"}},
		{"missing file", false, func(c copied) { c.remove(example) }, []string{example + ": missing"}},
		{"no gen at all", false, func(c copied) { c.remove("gen") }, []string{example + ": missing"}},
		{"extra file", false, func(c copied) { c.write("gen/notes.txt", "mine") }, []string{"gen/notes.txt: extra"}},
		{"ignored file", true, func(c copied) {
			c.write(".gitignore", "*_ttrpc.pb.go\n")
			c.run(0, "git", "rm", "--quiet", "--cached", "gen/example/v1/example_ttrpc.pb.go")
		}, []string{"gen/example/v1/example_ttrpc.pb.go: ignored by git (.gitignore:1: *_ttrpc.pb.go)"}},
		{"mutated pin", false, func(c copied) {
			c.replace("buf.gen.yaml", "protoc-gen-go@v1.36.12", "protoc-gen-go@v1.34.1")
		}, []string{example + ": changed", "v1.34.1"}},
		{"failing generator", false, func(c copied) {
			c.replace("buf.gen.yaml", `["go", "run", "github.com`, `["go", "no-such-command", "github.com`)
		}, []string{"no-such-command", "generate: exit status"}},
		{"broken proto", false, func(c copied) {
			c.replace(proto, "service Example {", "service {")
		}, []string{"example.proto:", "generate: exit status"}},
		{"nested module", false, func(c copied) {
			c.replace("bench/proto/bench/v1/bench.proto", "uint64 id = 1;", "uint64 id = 3;")
		}, []string{
			"bench/gen/ttrpc/bench/v1/bench.pb.go: changed", "bench/gen/grpc/bench/v1/bench.pb.go: changed",
			"bench/gen/connect/bench/v1/bench.pb.go: changed", "bench/gen/drpc/bench/v1/bench.pb.go: changed",
		}},
		{"extra file in a nested module", false, func(c copied) {
			c.write("bench/gen/notes.txt", "mine")
		}, []string{"bench/gen/notes.txt: extra"}},
		{"output outside gen", false, func(c copied) {
			c.replace("buf.gen.yaml", "out: gen", "out: generated")
		}, []string{"writes to generated"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			nested := slices.ContainsFunc(c.want, func(s string) bool { return strings.HasPrefix(s, "bench/") })
			if !nested {
				dir.remove("bench") // whose many generators take most of the time
			}
			if c.git {
				dir.commit()
			}
			c.edit(dir)
			before := dir.files()
			code := 0
			if len(c.want) > 0 {
				code = 2 // make's, of any recipe that fails
			}
			out := dir.run(code, "make", "check-generated")
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("the check did not print %q:\n%s", want, out)
				}
			}
			dir.wantUnchanged(before)
		})
	}
}

func TestCheckGeneratedWithoutBuf(t *testing.T) {
	out := scratch(t).run(2, "make", "check-generated", "BUF=no-such-buf")
	if !strings.Contains(out, "no-such-buf") {
		t.Errorf("the check did not name what it could not run:\n%s", out)
	}
}

func TestCheckGeneratedAnnotates(t *testing.T) {
	dir := scratch(t)
	dir.write("gen/notes.txt", "mine")
	cmd := dir.command("make", "check-generated")
	cmd.Env = append(cmd.Env, "GITHUB_ACTIONS=true")
	if out := proctest.Run(t, cmd).Stdout(); !strings.Contains(out, "\n::error file=gen/notes.txt,") {
		t.Errorf("the check did not annotate:\n%s", out)
	}
}

func TestCheckBreaking(t *testing.T) {
	const proto = "proto/example/v1/example.proto"
	dir := scratch(t)
	dir.commit()
	wantPrinted(t, dir.run(0, "make", "check-breaking"), "comparing with main")
	dir.replace(proto, "string bar = 2;", "string bar = 2;\n  string baz = 3;")
	dir.run(0, "make", "check-breaking", "BASE=main")
	dir.replace(proto, "string foo = 1;", "string fu = 1;")
	wantPrinted(t, dir.run(2, "make", "check-breaking", "BASE=main"), `"foo" to "fu"`)
	wantPrinted(t, dir.run(2, "make", "check-breaking"), `"foo" to "fu"`)
	wantPrinted(t, dir.run(2, "make", "check-breaking", "BASE=no-such-branch"), "no-such-branch")

	// A base without a contract, and no base at all.
	empty := scratch(t)
	empty.run(0, "git", "init", "--quiet", "--initial-branch=main")
	wantPrinted(t, empty.run(0, "make", "check-breaking"), "nothing to compare with")
	empty.run(0, "git", "add", "README.md")
	empty.run(0, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=start")
	wantPrinted(t, empty.run(0, "make", "check-breaking"), "main has no .proto")
}

// TestGeneratorVersion holds protoc-gen-go to the runtime that its output is compiled with.
func TestGeneratorVersion(t *testing.T) {
	dir := scratch(t)
	version := strings.TrimSpace(dir.run(0, "go", "list", "-m", "-f", "{{.Version}}", "google.golang.org/protobuf"))
	for _, want := range []string{"protobuf/cmd/protoc-gen-go@" + version, "ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.3"} {
		if !strings.Contains(dir.read("buf.gen.yaml"), want+`"`) {
			t.Errorf("buf.gen.yaml does not run %s", want)
		}
	}
}

func TestMakeRun(t *testing.T) {
	out := scratch(t).run(0, "make", "run")
	for _, want := range []string{
		"server start", "server interceptor", "method1 call", "client start", "client interceptor",
		`metadata={"name":["koye"]}`, "client | " + `{"foo":"Foo","bar":"Bar"}`, "server stop",
		`{"word":"feather"}`, `{"text":"light as a feather"}`, `{"message":"feather"}`,
	} {
		wantPrinted(t, out, want)
	}

	broken := scratch(t)
	broken.replace("server/example.go", "Foo: req.GetFoo(),", `Foo: "\xff",`) // not UTF-8: cannot be sent
	broken.run(2, "make", "run")
}

// TestAddMethod follows the README's section with that name, with the code that stands there.
func TestAddMethod(t *testing.T) {
	dir := scratch(t)
	dir.remove("bench") // which has nothing to do with it and takes its time
	_, section, _ := strings.Cut(dir.read("README.md"), "\n## Add a method\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)   ```(proto|go)\n(.*?)   ```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 3 {
		t.Fatalf("the section has %d blocks of code, want one for each file", len(blocks))
	}
	code := func(i int) string { return strings.ReplaceAll("\n"+blocks[i][2], "\n   ", "\n") }
	methods, messages, _ := strings.Cut(strings.TrimPrefix(code(0), "\nservice Example {\n"), "}\n\nmessage")

	dir.replace("proto/example/v1/example.proto", "service Example {\n", "service Example {\n"+methods+"\n")
	dir.write("proto/example/v1/example.proto", dir.read("proto/example/v1/example.proto")+"\nmessage"+messages)
	dir.run(0, "make", "generate")
	wantPrinted(t, dir.run(1, "go", "build", "./..."), "missing method Count")
	dir.write("server/example.go", dir.read("server/example.go")+code(1))
	dir.write("client/example.go", dir.read("client/example.go")+code(2))
	dir.replace("client/example.go", `"Echo":    echo,`, `"Echo":    echo, "Shout": shout, "Count": count,`)
	dir.run(0, "gofmt", "-w", "client/example.go")
	dir.run(0, "make", "build")
	dir.run(0, "make", "check-generated")
	dir.run(0, "go", "vet", "./...")

	address := proctest.Socket(t)
	proctest.Start(t, dir.command(dir.path("bin/server"), "-address", address)).WaitFor("server start")
	for method, want := range map[string]string{
		"Shout": `{"text":"HELLO"}` + "\n",
		"Count": "{\"number\":1}\n{\"number\":2}\n{\"number\":3}\n{\"number\":4}\n{\"number\":5}\n",
	} {
		p := proctest.Run(t, dir.command(dir.path("bin/client"), "-address", address, "-method", method, "-text", "hello"))
		if got := p.Stdout(); got != want {
			t.Errorf("%s printed %q, want %q", method, got, want)
		}
	}

	_, commands, _ := strings.Cut(section, "   make ttcurl\n")
	commands, _, _ = strings.Cut(commands, "   ```")
	dir.run(0, "make", "ttcurl")
	cmd := dir.command("sh", "-ec", commands)
	cmd.Env = append(cmd.Env, "TTRPC_ADDRESS="+address)
	p := proctest.Run(t, cmd)
	if got, want := strings.Join(strings.Fields(p.Stdout()), ""), `{"text":"HELLO"}{"number":1}{"number":2}{"number":3}`; got != want {
		t.Errorf("ttcurl printed %s, want %s", got, want)
	}
}

func TestRename(t *testing.T) {
	dir := scratch(t)
	old := strings.TrimSpace(dir.run(0, "go", "list", "-m"))
	const module = "github.com/You/my-app"
	dir.write("notes.md", old+" "+old+"/gen, "+old+"-tools x"+old+" "+old+".\n")
	dir.run(0, "make", "rename", "MODULE="+module)

	if got, want := dir.read("notes.md"), module+" "+module+"/gen, "+old+"-tools x"+old+" "+module+".\n"; got != want {
		t.Errorf("the text became %q, want %q", got, want)
	}
	for file, content := range dir.files() {
		if strings.Contains(content, old) && filepath.Base(file) != "notes.md" {
			t.Errorf("%s still names %s", file, old)
		}
	}
	dir.run(0, "make", "check-generated", "tidy")
	for _, nested := range []string{"bench", "tools"} {
		dir.run(0, "go", "vet", "-C", nested, "./...")
	}
	// All packages but this one, which would rename again.
	packages := strings.Fields(dir.run(0, "go", "list", "./..."))
	args := []string{"test"}
	for _, p := range packages {
		if p != module+"/internal/dev" {
			args = append(args, p)
		}
	}
	dir.run(0, "go", args...)
	wantPrinted(t, dir.run(0, "make", "run"), `{"foo":"Foo","bar":"Bar"}`)
}

func TestRenameRefuses(t *testing.T) {
	dir := scratch(t)
	before := dir.files()
	for _, module := range []string{
		"", " ", "two words", "https://github.com/you/app", "github.com/you/app/", "/app", "-app", "github.com/you/app/v1",
		"net/app", "fmt", "../app", "github.com//app", "github.com/you/ap\"p", "git@github.com:you/app",
	} {
		out := dir.run(2, "make", "rename", "MODULE="+module)
		if !strings.Contains(out, "rename: ") || !strings.Contains(out, "github.com/you/app") {
			t.Errorf("%q: the error does not say what is wanted:\n%s", module, out)
		}
		dir.wantUnchanged(before)
	}
}

func wantPrinted(t *testing.T, out, want string) {
	t.Helper()
	if !strings.Contains(out, want) {
		t.Errorf("%q was not printed:\n%s", want, out)
	}
}

// TestOldRuntime lets a server and a client that are built with the runtime of the generator's version, v1.2.3, talk to
// this project's client and server.
func TestOldRuntime(t *testing.T) {
	old := scratch(t)
	for _, dir := range []string{"server", "client"} {
		old.remove(dir)
	}
	old.write("stock/main.go", old.read("internal/e2e/stock/main.go"))
	old.remove("internal")
	old.run(0, "go", "mod", "edit", "-require=github.com/containerd/ttrpc@v1.2.3")
	old.run(0, "go", "mod", "tidy")
	wantPrinted(t, old.run(0, "go", "list", "-m", "github.com/containerd/ttrpc"), " v1.2.3\n")
	old.run(0, "go", "build", "-o", "old", "./stock")
	bin := t.TempDir()
	if err := proctest.Build(bin, "../..", "./server", "./client"); err != nil {
		t.Fatal(err)
	}

	address := proctest.Socket(t)
	path := strings.TrimPrefix(address, "unix://")
	s := proctest.Start(t, exec.Command(proctest.Exe(bin, "server"), "-address", address))
	s.WaitFor("server start")
	old.run(0, old.path("old"), "call", path)
	s.Signal(os.Interrupt)
	s.ExitCode()

	proctest.Start(t, exec.Command(old.path("old"), "serve", path)).WaitFor("serving")
	for method, want := range map[string]string{
		"Method1": `{"foo":"Foo","bar":"Bar"}` + "\n",
		"Split":   "{\"word\":\"a\"}\n{\"word\":\"b\"}\n",
		"Join":    "{\"text\":\"a b\"}\n",
		"Echo":    "{\"message\":\"a\"}\n{\"message\":\"b\"}\n",
	} {
		p := proctest.Run(t, exec.Command(proctest.Exe(bin, "client"), "-address", address, "-method", method, "-text", "a b"))
		if got := p.Stdout(); got != want {
			t.Errorf("%s printed %q, want %q", method, got, want)
		}
	}
}

// TestReadmesAgree holds the two languages to the same code and commands, links aside.
func TestReadmesAgree(t *testing.T) {
	dir := scratch(t)
	code := regexp.MustCompile("(?ms)^ *```.*?^ *```$|`[^`\n]+`")
	en := code.FindAllString(dir.read("README.md"), -1)
	ja := code.FindAllString(dir.read("README.ja.md"), -1)
	for _, c := range en {
		if !slices.Contains(ja, c) {
			t.Errorf("README.ja.md lacks %s", c)
		}
	}
	for _, c := range ja {
		if !slices.Contains(en, c) {
			t.Errorf("README.md lacks %s", c)
		}
	}
}
