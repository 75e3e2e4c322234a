package main

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/proctest"
)

// shellScripts print for each argument, a command line, what its last word may become, and "=" after that.
var shellScripts = map[string]string{
	"bash": `source <(ttcurl completion bash)
for line; do
	COMP_LINE=$line COMP_POINT=${#line} COMP_WORDS=(ttcurl) COMP_CWORD=1 COMPREPLY=()
	$(complete -p ttcurl | sed 's/.*-F \([^ ]*\).*/\1/')
	printf '%s\n' "${COMPREPLY[@]}" =
done`,
	"zsh": `compdef() { }
compadd() { shift; print -l -- "$@" }
_files() { }
source <(ttcurl completion zsh)
for line; do
	words=("${(@s: :)line}") CURRENT=$#words
	_ttcurl
	print -- =
done`,
	"fish": `ttcurl completion fish | source
for line in $argv
	complete -C $line
	echo =
end`,
}

// TestCompletion asks the shells themselves, where they are installed. bash gets all lines, as they take time.
func TestCompletion(t *testing.T) {
	_, path := stock(t, "-reflection")
	t.Setenv("TTRPC_ADDRESS", path)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	proto := "ttcurl -import-path " + dir + " -proto kinds.proto "
	const methods = "test.v1.Test/Echo test.v1.Test/Join test.v1.Test/Split test.v1.Test/Unary"
	const kinds = "kinds.v1.Enum kinds.v1.Message kinds.v1.Message.Nested kinds.v1.Message.Nested.Deep " +
		"kinds.v1.One kinds.v1.One/Call kinds.v1.Two kinds.v1.Two/Call"
	lines := map[string]string{
		"ttcurl ":                        strings.Join(slices.Sorted(slices.Values(verbs)), " ") + " " + methods,
		"ttcurl tes":                     methods,
		"ttcurl " + path + " ":           "describe list " + methods,
		"ttcurl describe test.v1.Split":  "test.v1.SplitRequest test.v1.SplitResponse",
		"ttcurl describe test.v1.Test/J": "test.v1.Test/Join",
		"ttcurl -max-":                   "-max-messages -max-time",
		"ttcurl -proto ":                 "",
	}
	more := map[string]string{
		"ttcurl l":                       "list",
		"ttcurl -format text tes":        methods,
		"ttcurl list ":                   "test.v1.Test",
		"ttcurl unix:" + path + " tes":   methods,
		"ttcurl " + path + " list ":      "test.v1.Test",
		"ttcurl -d '{\"a\": 1}' tes":     methods,
		"ttcurl -d 'not finished ":       "",
		proto + "describe kinds.v1.":     kinds,
		proto + "describe google.":       "google.protobuf.Empty",
		proto + "/nobody/there kinds.":   "kinds.v1.One/Call kinds.v1.Two/Call",
		"ttcurl -format ":                "json text",
		"ttcurl completion ":             "bash fish zsh",
		"ttcurl /nobody/there ":          "describe list",
		"ttcurl /nobody/t":               "",
		"ttcurl -nonsense ":              "",
		"ttcurl -ui ":                    "",
		"ttcurl list test.v1.Test nobod": "",
	}
	for shell := range shellScripts {
		t.Run(shell, func(t *testing.T) {
			want := maps.Clone(lines)
			if shell == "bash" {
				maps.Copy(want, more)
			}
			const tries = 5 // on a busy machine, a server may be later than completionTime
			for try := 1; len(want) > 0; try++ {
				for line, got := range inShell(t, shell, slices.Collect(maps.Keys(want))) {
					if got == want[line] {
						delete(want, line)
					} else if try == tries {
						t.Errorf("%q is completed to %q, want %q", line, got, want[line])
						delete(want, line)
					}
				}
			}
		})
	}
}

// inShell returns what the lines' last words may become in a shell that finds ttcurl, sorted, as not all shells do. It
// fails the test if anything is printed on standard error.
func inShell(t *testing.T, shell string, lines []string) map[string]string {
	t.Helper()
	args := []string{"-c", shellScripts[shell]}
	if shell != "fish" {
		args = append(args, shell)
	}
	cmd := exec.Command(proctest.Program(t, shell), append(args, lines...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "HOME="+t.TempDir())
	cmd.Dir = t.TempDir()
	p := proctest.Run(t, cmd)
	answers := strings.SplitAfter(p.Stdout(), "=\n")
	if p.ExitCode() != 0 || p.Stderr() != "" || len(answers) != len(lines)+1 {
		t.Fatalf("%s: exit code %d, printed %q and %q", shell, p.ExitCode(), p.Stdout(), p.Stderr())
	}
	completed := map[string]string{}
	for i, line := range lines {
		words := strings.Fields(strings.TrimSuffix(answers[i], "=\n"))
		slices.Sort(words)
		completed[line] = strings.Join(words, " ")
	}
	return completed
}

// TestCompletionEnds shows that the tab key gets an answer, and never an error, from what gives none itself: a server
// that says nothing, one that says nothing more after the first answer, and a schema that is a pipe.
func TestCompletionEnds(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no /dev/stdin")
	}
	_, silent := listen(t) // the kernel takes connections, and nobody else does
	l, sleepy := listen(t)
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	wait := func(ctx context.Context, _ ttrpc.StreamServer) (any, error) { <-ctx.Done(); return nil, ctx.Err() }
	server.RegisterService("grpc.reflection.v1.ServerReflection", &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{
		"ServerReflectionInfo": {StreamingClient: true, StreamingServer: true, Handler: wait},
	}})
	go server.Serve(t.Context(), l)
	t.Cleanup(func() { server.Close() })

	for _, args := range [][]string{{silent}, {sleepy}, {"-protoset", "/dev/stdin", silent}} {
		cmd := ttcurl(append(append([]string{completeCommand}, args...), "")...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		p := proctest.Start(t, cmd)
		if code := p.ExitCode(); code != 0 || p.Stdout() != "list\ndescribe\n" || p.Stderr() != "" {
			t.Errorf("%s: exit code %d, printed %q and %q", args, code, p.Stdout(), p.Stderr())
		}
	}
}
