//go:build unix

// Package dev tests the programs below it, and what the README promises of `make`, on scratch copies of the project.
package dev

import (
	"context"
	"debug/buildinfo"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

const example = "gen/example/v1/example.pb.go"

func TestCheckGenerated(t *testing.T) {
	const proto = "proto/example/v1/example.proto"
	// The first run may have to build buf. Runs at the same time would each build it.
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
		}, []string{`run "make generate"`, example + ": changed", "+++ b/" + example, "Baz"}},
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
		{"missing code for streams", false, func(c copied) {
			c.remove("gen/example/v1/example_ttrpcx.pb.go")
		}, []string{"gen/example/v1/example_ttrpcx.pb.go: missing"}},
		{"renamed method", false, func(c copied) {
			c.replace(proto, "rpc Split(", "rpc Divide(")
		}, []string{"gen/example/v1/example_ttrpcx.pb.go: changed", "gen/example/v1/example_ttrpc.pb.go: changed"}},
		{"name that is taken", false, func(c copied) {
			c.write(proto, c.read(proto)+"\n// HandleExample has the name of a function.\nmessage HandleExample {}\n")
		}, []string{"example.proto:", "HandleExample"}},
		{"no gen at all", false, func(c copied) { c.remove("gen") }, []string{example + ": missing"}},
		{"extra file", false, func(c copied) { c.write("gen/notes.txt", "mine") }, []string{"gen/notes.txt: extra"}},
		{"ignored file", true, func(c copied) {
			c.write(".gitignore", "*_ttrpc.pb.go\n")
			c.run(0, "git", "rm", "--quiet", "--cached", "gen/example/v1/example_ttrpc.pb.go")
		}, []string{"gen/example/v1/example_ttrpc.pb.go: ignored by git (.gitignore:1: *_ttrpc.pb.go)"}},
		{"mutated pin", false, func(c copied) {
			c.replace("buf.gen.yaml", "protoc-gen-go@v1.36.12", "protoc-gen-go@v1.34.1")
		}, []string{example + ": changed", "v1.34.1", " more lines"}},
		{"failing generator", false, func(c copied) {
			c.replace("buf.gen.yaml", `["go", "run", "github.com`, `["go", "no-such-command", "github.com`)
		}, []string{"no-such-command", "run buf generate in .:"}},
		{"broken proto", false, func(c copied) {
			c.replace(proto, "service Example {", "service {")
		}, []string{"example.proto:", "run buf generate in .:"}},
		{"nested module", false, func(c copied) {
			c.replace("bench/proto/bench/v1/bench.proto", "uint64 id = 1;", "uint64 id = 3;")
		}, []string{
			"bench/gen/ttrpc/bench/v1/bench.pb.go: changed", "bench/gen/grpc/bench/v1/bench.pb.go: changed",
			"bench/gen/connect/bench/v1/bench.pb.go: changed", "bench/gen/drpc/bench/v1/bench.pb.go: changed",
		}},
		{"tests' service", false, func(c copied) {
			c.replace("internal/testservice/proto/test/v1/test.proto", "string foo = 1;", "string foo = 3;")
		}, []string{"internal/testservice/gen/test/v1/test.pb.go: changed"}},
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
			for _, nested := range []string{"bench", "internal/testservice"} { // which take most of the time
				if !slices.ContainsFunc(c.want, func(s string) bool { return strings.HasPrefix(s, nested) }) {
					dir.remove(nested)
				}
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
				wantPrinted(t, out, want)
			}
			if lines := strings.Count(out, "\n"); lines > 80 {
				t.Errorf("the check printed %d lines", lines)
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
	dir.remove("bench")
	dir.write("gen/notes.txt", "mine")
	cmd := dir.command("make", "check-generated")
	cmd.Env = append(cmd.Env, "GITHUB_ACTIONS=true")
	wantPrinted(t, proctest.Run(t, cmd).Stderr(), "\n::error file=gen/notes.txt,")
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
	out := dir.run(2, "make", "check-breaking")
	wantPrinted(t, out, `"foo" to "fu"`)
	wantPrinted(t, dir.run(2, "make", "check-breaking", "BASE=no-such-branch"), "no-such-branch")

	// What it says about how to break callers on purpose works as it stands there.
	_, advice, _ := strings.Cut(out, "    breaking:\n")
	advice, _, _ = strings.Cut(strings.ReplaceAll("\n"+advice, "\n    ", "\n"), "\n  To ")
	advice = strings.ReplaceAll(strings.ReplaceAll(advice, "NAME", "example"), "\n\n", "\n")
	dir.replace("buf.yaml", "\nbreaking:", "\nbreaking:"+advice)
	dir.run(0, "make", "check-breaking")

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
	for _, file := range []string{"buf.gen.yaml", "internal/testservice/buf.gen.yaml"} {
		for _, want := range []string{"protobuf/cmd/protoc-gen-go@" + version, "ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.3"} {
			if !strings.Contains(dir.read(file), want+`"`) {
				t.Errorf("%s does not run %s", file, want)
			}
		}
	}
}

func TestMakeRun(t *testing.T) {
	dir := scratch(t)
	out := dir.run(0, "make", "run")
	for _, want := range []string{
		"server start", "server interceptor", "method1 call", "client start", "client interceptor",
		`metadata={"name":["koye"]}`, "client | " + `{"foo":"Foo","bar":"Bar"}`, "server stop",
		`{"word":"feather"}`, `{"text":"light as a feather"}`, `{"message":"feather"}`,
	} {
		wantPrinted(t, out, want)
	}

	// In a container with nothing else, a program runs only if no other has to load it.
	for _, name := range []string{"bin/server", "bin/client"} {
		info, err := buildinfo.ReadFile(dir.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "0"}) {
			t.Errorf("%s was not built with CGO_ENABLED=0: %v", name, info.Settings)
		}
	}

	broken := scratch(t)
	broken.replace("server/example.go", "Foo: req.GetFoo(),", `Foo: "\xff",`) // not UTF-8: cannot be sent
	broken.run(2, "make", "run")
}

// TestOldRuntime lets a server and a client that are built with the runtime of the generator's version, v1.2.3, talk to
// the library's client and server.
func TestOldRuntime(t *testing.T) {
	old := scratch(t)
	entries, err := os.ReadDir(old.path("internal"))
	if err != nil {
		t.Fatal(err)
	}
	old.write("stock/main.go", old.read("internal/e2e/stock/main.go"))
	for _, dir := range []string{"server", "client", "ttrpcx", "bench", "tools"} {
		old.remove(dir)
	}
	for _, e := range entries {
		if e.Name() != "testservice" {
			old.remove("internal/" + e.Name())
		}
	}
	old.run(0, "go", "mod", "edit", "-require=github.com/containerd/ttrpc@v1.2.3")
	old.run(0, "go", "mod", "tidy")
	wantPrinted(t, old.run(0, "go", "list", "-m", "github.com/containerd/ttrpc"), " v1.2.3\n")
	old.run(0, "go", "build", "-o", "old", "./stock")

	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	logger := slog.New(slog.DiscardHandler)
	server, err := ttrpcx.NewServer(ttrpcx.ServerOptions{Address: path, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	testv1.HandleTest(server, testservice.Service{})
	listener, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: path, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	old.run(0, old.path("old"), "call", path)
	// This client cannot receive while it sends, so it would hang if the server did not read on.
	for callers, size := range map[string]string{"500": "20000", "1000": "4000", "16": "1000000"} {
		old.run(0, old.path("old"), "call", path, callers, size)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}

	proctest.Start(t, exec.Command(old.path("old"), "serve", path)).WaitFor("serving")
	client, err := ttrpcx.NewClient(t.Context(), ttrpcx.ClientOptions{Address: path, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := testservice.CallAll(t.Context(), testv1.CallTest(client)); err != nil {
		t.Error(err)
	}
}
