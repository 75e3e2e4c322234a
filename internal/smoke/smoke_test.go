//go:build unix

// Package smoke checks that the two mains work together. No other test knows the example service. If you replace the
// service, change the calls in TestCalls and the one in importer_test.go.
package smoke

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// binaries builds the mains when the first test needs them. TestMain removes them.
var binaries = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "smoke-")
	if err = errors.Join(err, proctest.Build(dir, "../..", "./server", "./client")); err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(binaries())
	os.Exit(code)
}

// TestCalls calls each method with the client, and checks the answer and the lines with which the interceptors log the
// metadata.
func TestCalls(t *testing.T) {
	address := proctest.Socket(t)
	server := proctest.Start(t, exec.Command(proctest.Exe(binaries(), "server"), "-address", address))
	server.WaitFor("server start")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `{"foo":"Foo","bar":"Bar"}`},
		{[]string{"-foo", `a "b"`, "-bar", ""}, `{"foo":"a \"b\"","bar":""}`},
		{[]string{"-method", "Split", "-text", " light\tas \n"}, "{\"word\":\"light\"}\n{\"word\":\"as\"}"},
		{[]string{"-method", "Join", "-text", "light as"}, `{"text":"light as"}`},
		{[]string{"-method", "Echo", "-text", "light as"}, "{\"message\":\"light\"}\n{\"message\":\"as\"}"},
	} {
		args := append([]string{"-address", address, "-metadata", "name=koye"}, c.args...)
		client := proctest.Run(t, exec.Command(proctest.Exe(binaries(), "client"), args...))
		if got := client.Stdout(); client.ExitCode() != 0 || got != c.want+"\n" {
			t.Errorf("client %q printed %q with exit code %d, want %q", c.args, got, client.ExitCode(), c.want)
		}
		if !logged(client.Stderr(), "client interceptor") {
			t.Errorf("client %q did not log the metadata", c.args)
		}
	}
	server.Signal(os.Interrupt)
	if code := server.ExitCode(); code != 0 || strings.Contains(server.Stderr(), "ERROR") {
		t.Errorf("the server's exit code is %d", code)
	}
	if !logged(server.Stderr(), "server interceptor") {
		t.Error("the server did not log the metadata")
	}
}

// TestLongTexts checks that no call costs the server more than a text of a sensible size.
func TestLongTexts(t *testing.T) {
	address := proctest.Socket(t)
	server := proctest.Start(t, exec.Command(proctest.Exe(binaries(), "server"), "-address", address))
	server.WaitFor("server start")
	for _, method := range []string{"Split", "Join"} {
		client := proctest.Run(t, exec.Command(proctest.Exe(binaries(), "client"),
			"-address", address, "-timeout", "1m", "-method", method, "-text", strings.Repeat("x ", 33<<10)))
		if code := client.ExitCode(); code != 64+3 || client.Stdout() != "" { // InvalidArgument
			t.Errorf("%s: exit code %d, want 67, and %d bytes of answers", method, code, len(client.Stdout()))
		}
	}
}

// logged reports whether a line of the log has the message and the metadata.
func logged(log, message string) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, message) && strings.Contains(line, `"name":["koye"]`) {
			return true
		}
	}
	return false
}

// TestRefusals checks that both mains say what is wrong with their command lines.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ main, flag, value, want string }{
		{"client", "-method", "Method2", "want one of "},
		{"client", "-foo", "\xff", "UTF-8"},
		{"client", "-nonsense", "", "-nonsense"},
		{"server", "-nonsense", "", "-nonsense"},
	} {
		p := proctest.Run(t, exec.Command(proctest.Exe(binaries(), c.main), c.flag, c.value))
		if p.ExitCode() != 2 || !strings.Contains(p.Stderr(), c.want) {
			t.Errorf("%s %s %q says %q with exit code %d, want %q and 2",
				c.main, c.flag, c.value, p.Stderr(), p.ExitCode(), c.want)
		}
	}
}
