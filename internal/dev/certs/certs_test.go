//go:build unix

package main_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// TestCertificates writes certificates and has the server and the client use them, as processes.
func TestCertificates(t *testing.T) {
	bin := t.TempDir()
	if err := proctest.Build(bin, "../../..", "./internal/dev/certs", "./server", "./client"); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	certs := func(code int) *proctest.Process {
		t.Helper()
		cmd := exec.Command(proctest.Exe(bin, "certs"), "certs")
		cmd.Dir = work
		p := proctest.Run(t, cmd)
		if got := p.ExitCode(); got != code {
			t.Fatalf("exit code %d, want %d: %s", got, code, p.Stderr())
		}
		return p
	}
	advice := certs(0).Stdout()
	dir := filepath.Join(work, "certs")
	modes := map[string]fs.FileMode{
		"ca.pem": 0o644, "server.pem": 0o644, "server-key.pem": 0o600, "client.pem": 0o644, "client-key.pem": 0o600,
	}
	before := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := modes[e.Name()]; !ok || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", e.Name(), info.Mode(), want)
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		before[e.Name()] = string(content)
	}
	if len(entries) != len(modes) {
		t.Errorf("there are %d files, want %d", len(entries), len(modes))
	}

	if refusal := certs(1).Stderr(); !strings.Contains(refusal, "is there already") {
		t.Errorf("a second run says %q", refusal)
	}
	for name, content := range before {
		if now, _ := os.ReadFile(filepath.Join(dir, name)); string(now) != content {
			t.Errorf("a second run changed %s", name)
		}
	}
	if left, _ := os.ReadDir(work); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	// The advice works word for word, except the port.
	var server *proctest.Process
	port := "0"
	for line := range strings.Lines(advice) {
		program, args, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(program, "bin/") {
			continue
		}
		args = strings.Replace(args, "4433", port, 1)
		cmd := exec.Command(proctest.Exe(bin, strings.TrimPrefix(program, "bin/")), strings.Fields(args)...)
		cmd.Dir = work
		if program == "bin/server" {
			server = proctest.Start(t, cmd)
			server.WaitFor("server start")
			port = regexp.MustCompile(`address=tcp://\S+:(\d+)`).FindStringSubmatch(server.Stderr())[1]
			continue
		}
		client := proctest.Run(t, cmd)
		if code := client.ExitCode(); code != 0 || client.Stdout() != `{"foo":"Foo","bar":"Bar"}`+"\n" {
			t.Errorf("the client exits with %d and prints %q", code, client.Stdout())
		}
		server.WaitFor("peer.subject=")
	}
	if server == nil || port == "0" {
		t.Fatalf("there is no advice in %q", advice)
	}
}
