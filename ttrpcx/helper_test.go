package ttrpcx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// patience is how long a test waits for an event before it fails. A test that passes never waits that long.
const patience = 20 * time.Second

// socketPath returns a path for a unix socket in a new directory. The names of T.TempDir can be too long for a socket.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "d", "s")
}

// journal is a log that a test reads.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// lines returns the lines that contain all of the texts.
func (j *journal) lines(texts ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for line := range strings.Lines(j.buf.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// wantOnly waits for a line that contains all of the texts. The test fails if other lines were logged.
func (j *journal) wantOnly(t *testing.T, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("log line with %q", texts), func() bool { return len(j.lines(texts...)) > 0 })
	if all := j.lines(); len(all) != 1 {
		t.Errorf("logged %q, want one line with %q", all, texts)
	}
}

// clear removes all lines.
func (j *journal) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf.Reset()
}

// eventually waits for a state of which there is no notification.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// noLeaks fails the test if there are more goroutines or descriptors at its end than now.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors()
	t.Cleanup(func() {
		eventually(t, fmt.Sprintf("return to %d goroutines and %d descriptors", goroutines, descriptors), func() bool {
			return runtime.NumGoroutine() <= goroutines && countDescriptors() <= descriptors
		})
	})
}

// countDescriptors returns 0 on platforms without /proc.
func countDescriptors() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}

// unary returns a service that calls f at the start of its unary method.
func unary(f func(context.Context) error) testservice.Service {
	return testservice.Service{Begin: func(ctx context.Context, method string) error {
		if method != "Unary" {
			return nil
		}
		return f(ctx)
	}}
}

// served is a server in the test's process. It runs until the test ends.
type served struct {
	t        *testing.T
	listener *ttrpcx.Listener
	address  string
	log      *journal
	cancel   context.CancelFunc
	ended    chan struct{}
	err      error // of Serve, valid after ended is closed
}

// serve listens and serves. The default service only answers.
func serve(t *testing.T, o ttrpcx.ServerOptions, service ...testservice.Service) *served {
	t.Helper()
	if o.Address == "" {
		o.Address = socketPath(t)
	}
	s := &served{t: t, log: new(journal)}
	o.Logger = s.log.logger()
	l, err := ttrpcx.Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.run(l, service...)
	return s
}

func (s *served) run(l *ttrpcx.Listener, service ...testservice.Service) {
	s.t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		s.t.Fatal(err)
	}
	testv1.RegisterTestService(server, append(service, testservice.Service{})[0])
	s.listener, s.address, s.ended = l, l.String(), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		s.err = ttrpcx.Serve(ctx, server, l)
		close(s.ended)
	}()
	s.t.Cleanup(func() {
		_ = s.stop()
		if s.t.Failed() {
			s.t.Logf("the server logged:\n%s", s.log.lines())
		}
	})
}

// stop ends Serve and returns its error.
func (s *served) stop() error {
	s.t.Helper()
	s.cancel()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("Serve does not return")
	}
	return s.err
}

// options returns the options of a client of the server.
func (s *served) options() ttrpcx.ClientOptions {
	return ttrpcx.ClientOptions{Address: s.address, Logger: slog.New(slog.DiscardHandler)}
}

// dial returns a ttrpc client that is closed when the test ends.
func dial(t *testing.T, o ttrpcx.ClientOptions) (*ttrpc.Client, error) {
	t.Helper()
	conn, err := ttrpcx.Dial(t.Context(), o)
	if err != nil {
		return nil, err
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = client.Close() })
	return client, nil
}

func mustDial(t *testing.T, o ttrpcx.ClientOptions) *ttrpc.Client {
	t.Helper()
	client, err := dial(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// rawDial connects without Dial's checks, and sends nothing.
func rawDial(t *testing.T, address string) net.Conn {
	t.Helper()
	network, name, _ := strings.Cut(address, "://")
	conn, err := net.Dial(network, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call makes a unary call.
func call(ctx context.Context, client *ttrpc.Client) error {
	r, err := testv1.NewTestClient(client).Unary(ctx, &testv1.UnaryRequest{Foo: "foo", Bar: "bar"})
	if err == nil && (r.GetFoo() != "foo" || r.GetBar() != "bar") {
		err = fmt.Errorf("answered %v", r)
	}
	return err
}

// callAll makes a call of each kind.
func callAll(ctx context.Context, client *ttrpc.Client) error {
	return testservice.CallAll(ctx, testv1.NewTestClient(client))
}

// wantHangUp fails the test unless the peer ends the connection and sends no byte.
func wantHangUp(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v, want the end of the connection", n, err)
	}
}

// wantError fails the test unless the error's text contains all of the texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v does not contain %q", err, text)
		}
	}
}

// marshalRequest returns the payload of a request whose answer contains foo.
func marshalRequest(t *testing.T, foo string) []byte {
	t.Helper()
	payload, err := proto.Marshal(&testv1.UnaryRequest{Foo: foo})
	if err != nil {
		t.Fatal(err)
	}
	request, err := proto.Marshal(&ttrpc.Request{Service: "test.v1.Test", Method: "Unary", Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return request
}
