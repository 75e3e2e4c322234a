//go:build unix

package dev

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// makeNew makes a project of its own from the copy.
func (c copied) makeNew(vars ...string) copied {
	c.t.Helper()
	dir := filepath.Join(filepath.Dir(c.dir), filepath.Base(c.dir)+"-new")
	wantPrinted(c.t, c.run(0, "make", append([]string{"new", "DIR=" + dir}, vars...)...), "make run")
	return copied{c.t, dir}
}

// TestNewService makes a project with a service of another name. What its README promises must work, also after
// somebody has followed the README. The service's name is that of a package that the server uses, and the paths of its
// .proto package and of the module have more than one part.
func TestNewService(t *testing.T) {
	t.Parallel()
	starter := scratch(t)
	starter.write("bin/server", "not kept")
	starter.write("bench/notes.md", "not kept")
	project := starter.makeNew("MODULE=todo.test/log/v2", "SERVICE=acme.todo_list.v1beta1.Log")
	project.wantNames("example.v1", "example/v1", "examplev1", "Example service", "example.go", "example.proto")
	for _, file := range []string{
		"proto/acme/todo_list/v1beta1/log.proto", "gen/acme/todo_list/v1beta1/log_ttrpc.pb.go", "server/log.go",
		"client/log.go", "docs/systemd/log.service", "go.sum", "LICENSE", ".github/workflows/ci.yml",
		"ttrpcx/serve_test.go",
	} {
		project.read(file)
	}
	project.wantWorks()
	project.followReadme("proto/acme/todo_list/v1beta1/log.proto", "server/log.go", "client/log.go")
	wantPrinted(t, project.wantWorks(), `client | {"text":"LIGHT AS A FEATHER"}`)
	project.run(0, "go", "vet", "./...")
	project.run(0, "go", "test", "./internal/cli", "./internal/smoke", "./ttrpcx/interceptor/...")
}

// wantNames wants none of the names, nor those of what only the starter has, in any file or its path. All files must be
// in git's index, for the first commit to the main branch.
func (c copied) wantNames(not ...string) {
	c.t.Helper()
	not = append(not, "ttrpc-starter", "The starter's", "starter.mk", "ttcurl", "zsh", "make new", "make bench",
		"bench/", "tools/", "README.ja", "ttgate", "deploy/")
	for file, content := range c.files() {
		for _, name := range not {
			if strings.Contains(file[len(c.dir):]+"\n"+content, name) {
				c.t.Errorf("%s still says %q", file, name)
			}
		}
	}
	tracked := strings.Fields(c.run(0, "git", "ls-files"))
	if files := c.files(); len(tracked) != len(files) {
		c.t.Errorf("git tracks %d files of %d", len(tracked), len(files))
	}
	wantPrinted(c.t, c.run(0, "git", "symbolic-ref", "HEAD"), "refs/heads/main\n")
	c.run(1, "git", "rev-parse", "--quiet", "--verify", "HEAD")
}

// wantWorks wants `make run` and the checks to pass, except vet, which takes long, and golangci-lint, which takes
// minutes to build. Of the latter it checks what depends on names, the order of imports. It returns what `make run`
// prints.
func (c copied) wantWorks() string {
	c.t.Helper()
	c.run(0, "make", "check-generated", "check-breaking", "tidy", "lint", "GOLANGCI_LINT=true")
	if out := c.run(0, "gofmt", "-l", "."); out != "" {
		c.t.Errorf("gofmt would change %s", out)
	}
	module := strings.TrimSpace(c.run(0, "go", "list", "-m"))
	for file, content := range c.files() {
		if filepath.Ext(file) == ".go" && !strings.Contains(file, "/gen/") {
			c.wantLocalImportsLast(file, content, module)
		}
	}
	return c.run(0, "make", "run")
}

// wantLocalImportsLast wants the module's own packages in a block of imports of their own, after the others.
func (c copied) wantLocalImportsLast(file, content, module string) {
	c.t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, content, parser.ImportsOnly)
	if err != nil {
		c.t.Fatal(err)
	}
	wasLocal, line := false, 0
	for i, spec := range f.Imports {
		local := strings.HasPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
		now := set.Position(spec.Pos()).Line
		if i > 0 && (wasLocal && !local || !wasLocal && local && now == line+1) {
			c.t.Errorf("%s:%d: imports are not grouped", file, now)
		}
		wasLocal, line = local, now
	}
}

// followReadme adds the method of the project's README as it says there.
func (c copied) followReadme(proto, server, client string) {
	c.t.Helper()
	_, section, _ := strings.Cut(c.read("README.md"), "\n## Add a method\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var code []string
	blocks := regexp.MustCompile("(?s)\n   ```(?:proto|go)(\n.*?)   ```")
	for _, block := range blocks.FindAllStringSubmatch(section, -1) {
		code = append(code, strings.ReplaceAll(block[1], "\n   ", "\n"))
	}
	if len(code) != 5 {
		c.t.Fatalf("there are %d blocks of code in the section", len(code))
	}
	service := regexp.MustCompile(`\nservice \w+ \{`).FindString(c.read(proto))
	c.replace(proto, service, service+code[0])
	c.write(proto, c.read(proto)+code[1])
	c.run(0, "make", "generate")
	wantPrinted(c.t, c.run(2, "make", "build"), "missing method Shout")
	c.write(server, c.read(server)+code[2])
	c.write(client, c.read(client)+code[3])
	first := regexp.MustCompile(`\nvar calls = .*\{\n.*\n`).FindString(c.read(client))
	c.replace(client, first, first+strings.TrimPrefix(code[4], "\n"))
	flags := regexp.MustCompile("`('-method .*?')`").FindStringSubmatch(section)
	c.replace("Makefile", "'-method Echo'", "'-method Echo' "+flags[1])
}

// TestNewRefuses gives arguments that cannot be followed, and one that only buf can refuse.
func TestNewRefuses(t *testing.T) {
	starter := scratch(t)
	if err := proctest.Build(starter.dir, starter.dir, "./internal/dev/new"); err != nil {
		t.Fatal(err)
	}
	around := copied{t, t.TempDir()}
	around.write("full/file", "mine")
	around.write("empty/keep", "")
	around.remove("empty/keep")
	before, within := around.entries(), starter.files()
	buf := strings.Fields(regexp.MustCompile(`(?m)^BUF := (.*)$`).FindStringSubmatch(starter.read("Makefile"))[1])
	const module, dir = "github.com/you/app", "app"
	for _, c := range []struct {
		dir, module, service string
		code                 int
		want                 string // in one line on standard error
	}{
		{"", module, "", 2, "make new DIR=../app MODULE=github.com/you/app"},
		{dir, "", "", 2, "make new DIR=../app MODULE=github.com/you/app"},
		{"full", module, "", 2, "full is not empty: give a DIR"},
		{"full/file", module, "", 2, "is not a directory: give a DIR"},
		{"no/such", module, "", 2, "is not there: make it first"},
		{starter.path("app"), module, "", 2, "is inside the starter: give a DIR"},
		{starter.path("bin/../../" + filepath.Base(starter.dir) + "/app"), module, "", 2, "is inside the starter"},

		{dir, " ", "", 2, "want one such as github.com/you/app"},
		{dir, "two words", "", 2, "want one such as github.com/you/app"},
		{dir, "https://github.com/you/app", "", 2, "want one such as"},
		{dir, "github.com/you/app/", "", 2, "want one such as"},
		{dir, "/app", "", 2, "want one such as"},
		{dir, "-app", "", 2, "want one such as"},
		{dir, "github.com/you/app/v1", "", 2, "want one such as"},
		{dir, "net/app", "", 2, `"net" belongs to the standard library`},
		{dir, "../app", "", 2, "want one such as"},
		{dir, "github.com//app", "", 2, "want one such as"},
		{dir, "github.com/you/ap\"p", "", 2, "want one such as"},
		{dir, "git@github.com:you/app", "", 2, "want one such as"},
		{dir, "github.com/you/app~", "", 2, "names units and sockets"},
		{dir, "github.com/containerd/ttrpc", "", 2, "a module that the project uses"},
		{dir, "google.golang.org/grpc", "", 2, "a module that the project uses"},
		{dir, strings.TrimSpace(starter.run(0, "go", "list", "-m")), "", 2, "it is the starter's own"},

		{dir, module, "Todo", 2, "want one such as todo.v1.Todo"},
		{dir, module, "todo.Todo", 2, "a version"},
		{dir, module, "todo.v0.Todo", 2, "a version"},
		{dir, module, "todo.v1.", 2, "UpperCamelCase"},
		{dir, module, "todo.v1.todo", 2, "UpperCamelCase"},
		{dir, module, "todo.v1.To_do", 2, "UpperCamelCase"},
		{dir, module, "todo.v1.To2do", 2, "UpperCamelCase"},
		{dir, module, "Todo.v1.Todo", 2, "lower case"},
		{dir, module, "todo-list.v1.Todo", 2, "lower case"},
		{dir, module, "1todo.v1.Todo", 2, "lower case"},
		{dir, module, "to/do.v1.Todo", 2, "lower case"},
		{dir, module, "todo..v1.Todo", 2, "lower case"},
		{dir, module, "todo.internal.v1.Todo", 2, "called internal"},
		{dir, module, "test.v1.Todo", 2, "the tests' own"},
		{dir, module, "grpc.health.v1.Health", 2, "protobuf and gRPC"},
		{dir, module, "todo.v1.TodoService", 2, "adds Service"},
		{dir, module, "todo.v1.EchoRequest", 1, "buf lint in the new project"},
	} {
		cmd := starter.command(starter.path("new"), append([]string{c.dir, c.module, c.service}, buf...)...)
		if c.dir != "" && !filepath.IsAbs(c.dir) {
			cmd.Args[1] = around.path(c.dir)
		}
		p := proctest.Run(t, cmd)
		last := p.Stderr()[strings.LastIndex(strings.TrimSpace(p.Stderr()), "\n")+1:]
		if p.ExitCode() != c.code || !strings.HasPrefix(last, "new: ") || !strings.Contains(last, c.want) {
			t.Errorf("new %q: exit code %d and %q, want %d and %q",
				cmd.Args[1:4], p.ExitCode(), p.Stderr(), c.code, c.want)
		}
		if c.code == 2 && p.Stderr() != last {
			t.Errorf("new %q prints more than a line: %q", cmd.Args[1:4], p.Stderr())
		}
	}
	if after := around.entries(); after != before {
		t.Errorf("there is now %s, where was %s", after, before)
	}
	starter.wantUnchanged(within)
}

// entries lists what is in the directory.
func (c copied) entries() string {
	c.t.Helper()
	return c.run(0, "find", ".")
}

// TestDeleteExample takes the Example away, which leaves nothing that does not compile, and a ttcurl that works.
func TestDeleteExample(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	for _, gone := range []string{"proto/example", "gen/example", "server", "client", "internal/smoke"} {
		dir.remove(gone)
	}
	dir.run(0, "go", "vet", "./ttrpcx/...")
	for _, nested := range []string{"tools", "bench"} {
		dir.run(0, "go", "vet", "-C", nested, "./...")
	}
	dir.run(0, "go", "test", "-C", "tools", "-run", "TestScripts/list$", "./ttcurl")
}

// TestReplaceExample makes a project from a checkout, which keeps the Example, and then puts two services of another
// package in its place.
func TestReplaceExample(t *testing.T) {
	t.Parallel()
	starter := scratch(t)
	starter.commit()
	starter.write("server/mine.go", "not tracked, and so not kept")
	project := starter.makeNew("MODULE=github.com/Acme/shop")
	project.wantNames()
	wantPrinted(t, project.run(0, "make", "run"), `client | {"foo":"Foo","bar":"Bar"}`)

	for _, gone := range []string{"proto/example", "server/example.go", "client/example.go", "internal/smoke"} {
		project.remove(gone)
	}
	if err := os.CopyFS(project.dir, os.DirFS("testdata/shop")); err != nil {
		t.Fatal(err)
	}
	for _, main := range []string{"server/main.go", "client/main.go"} {
		text := project.read(main)
		text = strings.ReplaceAll(text, `examplev1 "github.com/Acme/shop/gen/example/v1"`,
			`shopv1 "github.com/Acme/shop/gen/acme/shop/v1"`)
		text = strings.ReplaceAll(text, "examplev1.HandleExample(server, &example{options.Logger})",
			"shopv1.HandleShop(server, shop{})\n\tshopv1.HandleDesk(server, desk{})")
		project.write(main, text)
	}
	project.replace("client/main.go", "\tshopv1 \"github.com/Acme/shop/gen/acme/shop/v1\"\n", "")
	project.replace("client/main.go", "examplev1.CallExample(client)", "client")
	calls := regexp.MustCompile(`'-metadata .*'`).FindString(project.read("Makefile"))
	project.replace("Makefile", calls,
		"'-method Order' '-method Follow' '-method Fill' '-method Haggle' '-method Ring'")
	project.run(0, "make", "generate")
	out := project.wantWorks()
	for _, want := range []string{
		`{"numbers":{"KIND_BREAD":2},"way":"fetched"}`,
		`{"state":"STATE_PACKED","took":"0s"}`, `{"state":"STATE_SENT","took":"1s"}`,
		`{"number":2}`, `{"price":"500"}`, `{"words":"Good day!"}`,
	} {
		wantPrinted(t, out, "client | "+want)
	}
}
