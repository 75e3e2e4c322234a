package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// TestCompletion asks the shells themselves, where they are installed.
func TestCompletion(t *testing.T) {
	const methods = "test.v1.Test/Echo\ntest.v1.Test/Join\ntest.v1.Test/Split\ntest.v1.Test/Unary\n"
	_, path := stock(t, "-reflection")
	t.Setenv("TTRPC_ADDRESS", path)
	t.Run("bash", func(t *testing.T) {
		complete := func(line string) string {
			const script = `source <(ttcurl completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=(ttcurl) COMP_CWORD=1
$(complete -p ttcurl | sed 's/.*-F \([^ ]*\).*/\1/')
printf '%s\n' "${COMPREPLY[@]}"`
			return inShell(t, "bash", "-c", script, "bash", line)
		}
		for line, want := range map[string]string{
			"ttcurl " + path + " l":                         "list\n",
			"ttcurl " + path + " test.v1.Test/S":            "test.v1.Test/Split\n",
			"ttcurl unix://" + path + " test.v1.Test/S":     "test.v1.Test/Split\n",
			"ttcurl -d '{\"a\": 1}' " + path + " test.v1.T": methods,
			"ttcurl " + path + " list ":                     "test.v1.Test\n",
			"ttcurl " + path + " describe test.v1.Test/J":   "test.v1.Test/Join\n",
			"ttcurl " + path + " describe test.v1.Split":    "test.v1.SplitRequest\ntest.v1.SplitResponse\n",

			// without an address, at the default one
			"ttcurl test.v1.T":                 methods,
			"ttcurl -v test.v1.Test/S":         "test.v1.Test/Split\n",
			"ttcurl list ":                     "test.v1.Test\n",
			"ttcurl describe test.v1.EchoRequ": "test.v1.EchoRequest\n",
			"ttcurl v":                         "version\n",
			"ttcurl ./s":                       "\n",

			"ttcurl -max-":             "-max-messages\n-max-time\n",
			"ttcurl -format ":          "json\ntext\n",
			"ttcurl -proto ":           "\n",
			"ttcurl completion ":       "bash\nzsh\nfish\n",
			"ttcurl /nobody/there ":    "list\ndescribe\n",
			"ttcurl -d 'not finished ": "\n",
		} {
			if got := complete(line); got != want {
				t.Errorf("%q is completed to %q, want %q", line, got, want)
			}
		}
	})
	t.Run("zsh", func(t *testing.T) {
		const script = `compdef() { }
compadd() { shift; print -l -- "$@" }
_files() { print files }
source <(ttcurl completion zsh)
words=(ttcurl "$@") CURRENT=$(( $# + 1 ))
_ttcurl`
		got, want := inShell(t, "zsh", "-fc", script, "zsh", path, "test.v1.Test/S"), "test.v1.Test/Split\n"
		if got != want {
			t.Errorf("completed to %q, want %q", got, want)
		}
		if got, want := inShell(t, "zsh", "-fc", script, "zsh", "-proto", ""), "files\n"; got != want {
			t.Errorf("completed to %q, want %q", got, want)
		}
		if got := inShell(t, "zsh", "-fc", script, "zsh", "test.v1.T"); got != methods {
			t.Errorf("completed to %q, want %q", got, methods)
		}
	})
	t.Run("fish", func(t *testing.T) {
		const script = `ttcurl completion fish | source; complete -C "ttcurl $argv[1] test.v1.Test/S"`
		if got, want := inShell(t, "fish", "--no-config", "-c", script, path), "test.v1.Test/Split\n"; got != want {
			t.Errorf("completed to %q, want %q", got, want)
		}
	})
}

// inShell returns what a shell prints that finds ttcurl.
func inShell(t *testing.T, shell string, args ...string) string {
	t.Helper()
	cmd := exec.Command(proctest.Program(t, shell), args...)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
