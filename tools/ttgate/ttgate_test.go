package main_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/ttrpc-starter/internal/proctest"
)

// patience is how long a test waits for what must happen. Busy machines are slow.
const patience = time.Minute

var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(serveDirect) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return
	}
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if bin, err = os.MkdirTemp("", ""); err == nil {
		defer os.RemoveAll(bin)
		err = errors.Join(
			proctest.Build(bin, "..", "./ttgate", "./internal/probe"),
			proctest.Build(bin, "../..", "./internal/dev/certs"),
		)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	code = m.Run()
}

// probe starts the backend, and returns it and its address.
func probe(t testing.TB, flags ...string) (*proctest.Process, string) {
	t.Helper()
	address := proctest.Socket(t)
	return probeAt(t, address, flags...), address
}

func probeAt(t testing.TB, address string, flags ...string) *proctest.Process {
	t.Helper()
	args := append([]string{"-address", address, "-max-log-lines", "-1"}, flags...)
	p := proctest.Start(t, exec.Command(proctest.Exe(bin, "probe"), args...))
	p.WaitFor("server start")
	return p
}

// running is a gate that runs.
type running struct {
	*proctest.Process
	t       testing.TB
	address string      // HOST:PORT
	other   string      // of -listen-grpc
	tls     *tls.Config // of its clients; nil without TLS
}

// alone returns g with the listener that is for gRPC alone.
func (g *running) alone() *running {
	alone := *g
	alone.address = g.other
	return &alone
}

// gate starts a gate for a backend, and waits until that is up.
func gate(t testing.TB, backend string, flags ...string) *running {
	t.Helper()
	g := startGate(t, append([]string{"-insecure", "-backend", backend}, flags...)...)
	g.WaitFor("backend up")
	return g
}

var started = regexp.MustCompile(`gate start address=tcp://(\S+)(?:.* grpc-address=tcp://(\S+))?`)

func startGate(t testing.TB, flags ...string) *running {
	t.Helper()
	const free = "tcp://127.0.0.1:0"
	args := append([]string{"-listen", free, "-listen-grpc", free, "-max-log-lines", "-1"}, flags...)
	p := proctest.Start(t, exec.Command(proctest.Exe(bin, "ttgate"), args...))
	p.WaitFor("gate start")
	address := started.FindStringSubmatch(p.Stderr())
	if address == nil {
		t.Fatalf("no address in %q", p.Stderr())
	}
	return &running{Process: p, t: t, address: address[1], other: address[2]}
}

// url returns the URL of a path.
func (g *running) url(path string) string {
	if g.tls != nil {
		return "https://" + g.address + path
	}
	return "http://" + g.address + path
}

// http returns a client that speaks HTTP/2 or else HTTP/1.1.
func (g *running) http(two bool) *http.Client {
	g.t.Helper()
	transport := &http.Transport{TLSClientConfig: g.tls, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!two)
	transport.Protocols.SetHTTP2(two && g.tls != nil)
	transport.Protocols.SetUnencryptedHTTP2(two && g.tls == nil)
	g.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// grpc returns a connection of grpc-go.
func (g *running) grpc(options ...grpc.DialOption) *grpc.ClientConn {
	g.t.Helper()
	secure := insecure.NewCredentials()
	if g.tls != nil {
		secure = credentials.NewTLS(g.tls)
	}
	conn, err := grpc.NewClient(g.address, append(options, grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// neighbour returns a connection from another address of this machine, or nil if it has none.
func (g *running) neighbour() *grpc.ClientConn {
	g.t.Helper()
	if runtime.GOOS != "linux" { // where all of 127.0.0.0/8 is there
		return nil
	}
	return g.grpc(grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(ctx, "tcp", address)
	}))
}

// scrape returns the gate's metrics.
func (g *running) scrape() string {
	g.t.Helper()
	resp, err := http.Get(regexp.MustCompile(`http://\S+/metrics`).FindString(g.Stderr()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(text)
}

// dial connects to the gate and sends nothing.
func (g *running) dial() net.Conn {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestBadFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"":                                  "-tls-cert and -tls-key are needed, or else -insecure",
		"-insecure -listen :8443":           `-listen is ":8443": want tcp://HOST:PORT`,
		"-insecure -listen tcp://nowhere":   `-listen is "tcp://nowhere": want tcp://HOST:PORT`,
		"-insecure -listen-grpc :1":         `-listen-grpc is ":1": want tcp://HOST:PORT`,
		"-insecure -backend tcp://a:1":      "-backend is \"tcp://a:1\": want a socket of this machine",
		"-insecure -tls-cert a -tls-key b":  "-insecure excludes -tls-cert",
		"-insecure -max-message 5MiB":       "-max-message is 5MiB: want more than zero and at most 4MiB",
		"-insecure -max-header 0":           "-max-header is 0: want more than zero",
		"-insecure -metrics 0.0.0.0:9090":   `-metrics is "0.0.0.0:9090": want localhost:PORT`,
		"-insecure -cors-origin a.example":  "want SCHEME://HOST",
		"-insecure -cors-origin http://a/b": "want SCHEME://HOST",
		"-insecure -max-calls 0":            "want a whole number above zero",
		"-insecure -max-memory 5MiB":        "-max-memory is 5MiB: want room for two messages",
		"-insecure x":                       `unexpected argument "x"`,
	} {
		p := proctest.Run(t, exec.Command(proctest.Exe(bin, "ttgate"), strings.Fields(flags)...))
		if p.ExitCode() != 2 || !strings.Contains(p.Stderr(), want) {
			t.Errorf("ttgate %s: exit code %d, want 2 with %q:\n%s", flags, p.ExitCode(), want, p.Stderr())
		}
	}
	for flags, want := range map[string]string{
		"-tls-cert /nowhere/a -tls-key /nowhere/b":                           "/nowhere/a",
		"-insecure -listen tcp://192.0.2.1:1":                                "192.0.2.1:1",
		"-insecure -listen tcp://127.0.0.1:0 -listen-grpc tcp://192.0.2.1:1": "listen at -listen-grpc",
	} {
		p := proctest.Run(t, exec.Command(proctest.Exe(bin, "ttgate"), strings.Fields(flags)...))
		if p.ExitCode() != 1 || !strings.Contains(p.Stderr(), want) {
			t.Errorf("ttgate %s: exit code %d, want 1 with %q:\n%s", flags, p.ExitCode(), want, p.Stderr())
		}
	}
}
