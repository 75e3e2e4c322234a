//go:build unix

// Package e2e tests the library in processes on real sockets. Its server and client are like the starter's, with the
// same flags and logs, but they have the tests' service instead of the example.
package e2e

import (
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// binaries builds the server, the client, the stock program and the maker of certificates when the first test needs
// them. It is not done in TestMain, because the go command's cache of results only considers files that a test opens.
// TestMain removes the binaries.
var binaries = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "e2e-")
	if err == nil {
		err = proctest.Build(dir, "../..", "./internal/e2e/server", "./internal/e2e/client", "./internal/e2e/stock",
			"./internal/dev/certs")
	}
	if err != nil {
		panic(err)
	}
	return dir
})

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(binaries())
	os.Exit(code)
}

func server(args ...string) *exec.Cmd {
	return exec.Command(proctest.Exe(binaries(), "server"), args...)
}

func client(args ...string) *exec.Cmd {
	return exec.Command(proctest.Exe(binaries(), "client"), args...)
}

func stock(args ...string) *exec.Cmd { return exec.Command(proctest.Exe(binaries(), "stock"), args...) }

// startServer starts a server and waits until it listens.
func startServer(t *testing.T, args ...string) (*proctest.Process, string) {
	t.Helper()
	address := proctest.Socket(t)
	p := proctest.Start(t, server(append([]string{"-address", address}, args...)...))
	p.WaitFor("server start")
	return p, address
}

// TestStockPeers checks the server with ttrpc's own client, and the client with ttrpc's own server.
func TestStockPeers(t *testing.T) {
	_, address := startServer(t)
	if p := proctest.Run(t, stock("call", strings.TrimPrefix(address, "unix://"))); p.ExitCode() != 0 {
		t.Errorf("a stock client says %q", p.Stderr())
	}

	address = proctest.Socket(t)
	proctest.Start(t, stock("serve", strings.TrimPrefix(address, "unix://"))).WaitFor("serving")
	if p := proctest.Run(t, client("-address", address, "-all")); p.ExitCode() != 0 {
		t.Errorf("the client says %q of a stock server", p.Stderr())
	}
}

// TestMetadata checks that the server logs the metadata of a call of each kind.
func TestMetadata(t *testing.T) {
	s, address := startServer(t, "-log-format", "json")
	s.WaitFor(`"msg":"server start","address":"` + address + `"}`)
	proctest.Run(t, client("-address", address, "-metadata", "Name=a", "-metadata", "name=b=c", "-metadata", "empty="))
	s.WaitFor(`"metadata":{"empty":[""],"name":["a","b=c"]}`)
	proctest.Run(t, client("-address", address, "-all"))
	for _, method := range []string{"Unary", "Split", "Join", "Echo"} {
		s.WaitFor(`"method":"/test.v1.Test/` + method + `","metadata":{"name":["koye"]}`)
	}
}

// TestExitCodes checks the exit codes, and that standard output has results only.
func TestExitCodes(t *testing.T) {
	address := proctest.Socket(t)
	for _, c := range []struct {
		cmd    *exec.Cmd
		code   int
		stdout string // a part of it
		stderr string // a part of it
	}{
		{server("-h"), 0, "Usage: server", ""},
		{client("-h"), 0, "Usage: client", ""},
		{server("-nonsense"), 2, "", "Usage: server"},
		{client("-nonsense"), 2, "", "Usage: client"},
		{server("-insecure"), 2, "", "-insecure are for TCP"},
		{client("-insecure"), 2, "", "-insecure are for TCP"},
		{client("-address", address), 1, "", address},
		{client("-address", address, "-wait", "-timeout", "50ms"), 1, "", "is the server running?"},
	} {
		t.Run(strings.Join(c.cmd.Args[1:], " "), func(t *testing.T) {
			p := proctest.Run(t, c.cmd)
			if code := p.ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if got := p.Stdout(); !strings.Contains(got, c.stdout) || c.stdout == "" && got != "" {
				t.Errorf("stdout is %q, want %q in it", got, c.stdout)
			}
			if got := p.Stderr(); !strings.Contains(got, c.stderr) || c.stderr == "" && got != "" {
				t.Errorf("stderr is %q, want %q in it", got, c.stderr)
			}
		})
	}
}

// TestStatusExitCode calls a server that is stopped by a signal. The kernel accepts the connection, and no answer
// comes.
func TestStatusExitCode(t *testing.T) {
	s, address := startServer(t)
	s.Signal(syscall.SIGSTOP)
	p := proctest.Run(t, client("-address", address, "-timeout", "50ms"))
	if code, want := p.ExitCode(), 64+4; code != want { // DeadlineExceeded
		t.Errorf("exit code %d, want %d", code, want)
	}
}

// TestHostileStatus calls a server that answers with a code that gRPC does not have, and with a message that wants to
// look like another line.
func TestHostileStatus(t *testing.T) {
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	testv1.RegisterTestService(server, testservice.Service{Begin: func(context.Context, string) error {
		return status.Error(192, "no\nclient: all is well\u202e\u009b") // 64+192 is 0 in eight bits
	}})
	address := proctest.Socket(t)
	l, err := net.Listen("unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(context.Background(), l) }()
	t.Cleanup(func() { _ = server.Close() })

	p := proctest.Run(t, client("-address", address))
	if code, want := p.ExitCode(), 64+2; code != want { // Unknown
		t.Errorf("exit code %d, want %d", code, want)
	}
	if want := `no\nclient: all is well\u202e\u009b` + "\n"; !strings.HasSuffix(p.Stderr(), want) {
		t.Errorf("stderr is %q, want %q at its end", p.Stderr(), want)
	}
}

// TestUnwritableAnswer checks the exit code if the answer cannot be printed. It must not be one of a failed call.
func TestUnwritableAnswer(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("only Linux has /dev/full")
	}
	_, address := startServer(t)
	p := proctest.Run(t, exec.Command("sh", "-c", `exec "$0" "$@" >/dev/full`, client().Path, "-address", address))
	if code := p.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

func TestSocketLifecycle(t *testing.T) {
	s, address := startServer(t)
	path := strings.TrimPrefix(address, "unix://")
	wantMode(t, path, fs.ModeSocket|0o600)

	second := proctest.Run(t, server("-address", address))
	if code := second.ExitCode(); code != 1 {
		t.Errorf("a second server's exit code is %d, want 1", code)
	}
	if log := second.Stderr(); !strings.Contains(log, address) || !strings.Contains(log, "in use") {
		t.Errorf("a second server said %q, want the address and that it is in use", log)
	}
	if p := proctest.Run(t, client("-address", address)); p.ExitCode() != 0 {
		t.Errorf("the first server no longer answers")
	}

	s.Signal(os.Kill)
	s.ExitCode()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the killed server's socket should be there for the next one to replace: %v", err)
	}
	s = proctest.Start(t, server("-address", address))
	s.WaitFor("server start")
	if p := proctest.Run(t, client("-address", address)); p.ExitCode() != 0 {
		t.Errorf("the server that replaced the stale socket does not answer")
	}

	s.Signal(syscall.SIGTERM)
	if code := s.ExitCode(); code != 0 {
		t.Errorf("exit code after SIGTERM is %d, want 0", code)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("the server left %v behind", left)
	}
}

// TestDefaultAddress checks that the server and the client have the same default address, in a directory that the
// server creates and that only the user can access.
func TestDefaultAddress(t *testing.T) {
	const app = cli.App
	for _, c := range []struct{ variable, socket string }{
		{"XDG_RUNTIME_DIR", app + "/" + app + ".sock"},
		{"TTRPC_ADDRESS", "s/s.sock"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			dir := filepath.Dir(strings.TrimPrefix(proctest.Socket(t), "unix://"))
			value, socket := dir, filepath.Join(dir, c.socket)
			if c.variable == "TTRPC_ADDRESS" {
				value = socket
			}
			env := []string{"PATH=" + os.Getenv("PATH"), c.variable + "=" + value}
			s, cl := server(), client()
			s.Env, cl.Env = env, env
			p := proctest.Start(t, s)
			p.WaitFor("server start")
			wantMode(t, socket, fs.ModeSocket|0o600)
			wantMode(t, filepath.Dir(socket), fs.ModeDir|0o700)
			if got := proctest.Run(t, cl).Stdout(); got != `{"foo":"Foo","bar":"Bar"}`+"\n" {
				t.Errorf("the client got %q", got)
			}
		})
	}
}

// TestRacingServers starts several servers at the same time on one stale socket. Exactly one may serve.
func TestRacingServers(t *testing.T) {
	first, address := startServer(t)
	first.Signal(os.Kill)
	first.ExitCode()

	const racers = 8
	var group sync.WaitGroup
	ps := make([]*proctest.Process, racers)
	for i := range ps {
		ps[i] = proctest.Start(t, server("-address", address))
	}
	var refused atomic.Int32
	for _, p := range ps {
		group.Go(func() {
			p.WaitFor("address") // "server start address=..." or "server: ...: address in use"
			if strings.Contains(p.Stderr(), "in use") {
				refused.Add(1)
			}
		})
	}
	group.Wait()
	if got := refused.Load(); got != racers-1 {
		t.Errorf("%d of %d servers were refused, want all but one", got, racers)
	}
	if p := proctest.Run(t, client("-address", address)); p.ExitCode() != 0 {
		t.Errorf("the winner does not answer")
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}
