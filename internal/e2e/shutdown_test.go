//go:build unix

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

var rounds = flag.Int("rounds", 3, "`number` of rounds of TestStop... and TestKill...; 50 is the long run")

const (
	callers = 64
	streams = 8

	// callAlways makes one of this many callers go on while there is no server. The others wait.
	callAlways = 8
)

// dialOurs returns a client with the library's connection.
func dialOurs(t testing.TB, address string) *ttrpc.Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := ttrpcx.NewClient(t.Context(), ttrpcx.ClientOptions{Address: address, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.TTRPC
}

// dialStock returns ttrpc's own client.
func dialStock(t testing.TB, address string) *ttrpc.Client {
	t.Helper()
	network, address, _ := strings.Cut(address, "://")
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// load has callers that make calls without a pause.
type load struct {
	client testv1.TestClient
	ctx    context.Context

	group    sync.WaitGroup
	answered atomic.Int64
	warm     chan struct{} // closed when each caller has had an answer

	mu     sync.Mutex
	failed []error // the error with which each caller has ended
}

// startLoad starts callers, and waits until each has had an answer. A caller ends when a call fails.
func startLoad(t testing.TB, client *ttrpc.Client) *load {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	l := &load{client: testv1.NewTestClient(client), ctx: ctx, warm: make(chan struct{})}
	var warm sync.WaitGroup
	warm.Add(callers)
	for i := range callers {
		l.group.Go(func() {
			var once sync.Once
			defer once.Do(warm.Done)
			for n := 0; ; n++ {
				if err := l.call(fmt.Sprint(i, n)); err != nil {
					l.mu.Lock()
					defer l.mu.Unlock()
					l.failed = append(l.failed, err)
					return
				}
				l.answered.Add(1)
				once.Do(warm.Done)
			}
		})
	}
	warm.Wait()
	return l
}

func (l *load) call(foo string) error {
	got, err := l.client.Unary(l.ctx, &testv1.UnaryRequest{Foo: foo})
	if err == nil && got.GetFoo() != foo {
		err = fmt.Errorf("%w: %q to %q", errWrong, got.GetFoo(), foo)
	}
	return err
}

// openStreams opens streams and leaves them open.
func openStreams(t testing.TB, client *ttrpc.Client) []testv1.Test_EchoClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	opened := make([]testv1.Test_EchoClient, streams)
	for i := range opened {
		var err error
		if opened[i], err = testv1.NewTestClient(client).Echo(ctx); err != nil {
			t.Fatal(err)
		}
		if err := echo(opened[i]); err != nil {
			t.Fatal(err)
		}
	}
	return opened
}

// echo sends a message and gets it back.
func echo(stream testv1.Test_EchoClient) error {
	if err := stream.Send(&testv1.EchoRequest{Message: "x"}); err != nil {
		return err
	}
	got, err := stream.Recv()
	if err == nil && got.GetMessage() != "x" {
		err = fmt.Errorf("%w: %q", errWrong, got.GetMessage())
	}
	return err
}

// finish closes the sending end of a stream and waits until the server ends the stream.
func finish(stream testv1.Test_EchoClient) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w at the end of a stream", errWrong, err)
	}
	return nil
}

// eachClient runs a test for some rounds with each kind of client.
func eachClient(t *testing.T, test func(t *testing.T, stock bool, dial func(testing.TB, string) *ttrpc.Client)) {
	for range *rounds {
		t.Run("ours", func(t *testing.T) { test(t, false, dialOurs) })
		t.Run("stock", func(t *testing.T) { test(t, true, dialStock) })
		if t.Failed() {
			return
		}
	}
	t.Logf("%d stops with each client, under load of %d callers and %d streams", *rounds, callers, streams)
}

// TestStopUnderLoad stops a server that has open streams, while callers make calls. As long as the streams are open,
// new calls must get Unavailable. The server must finish each call that it has begun.
func TestStopUnderLoad(t *testing.T) {
	eachClient(t, func(t *testing.T, _ bool, dial func(testing.TB, string) *ttrpc.Client) {
		s := startWatched(t, proctest.Socket(t), "-shutdown-timeout", patience.String())
		c := dial(t, "unix://"+s.path)
		open := openStreams(t, c)
		l := startLoad(t, c)

		s.Signal(syscall.SIGTERM)
		l.group.Wait()
		for _, err := range l.failed {
			if status.Code(err) != codes.Unavailable || errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("a caller ended with %v, want Unavailable", err)
			}
		}
		for _, stream := range open {
			err := echo(stream)
			if err == nil {
				err = finish(stream)
			}
			if err != nil {
				t.Errorf("stream while the server stops: %v", err)
			}
		}
		l.wantAllAnswered(t, s)
	})
}

// TestStopRacesLoad stops a server whose streams end at the same time, so it closes the connection while callers make
// calls. The server must finish each call that it has begun. With our client, the other calls get Unavailable. With
// ttrpc's own client, they may also get ErrClosed.
func TestStopRacesLoad(t *testing.T) {
	eachClient(t, func(t *testing.T, stock bool, dial func(testing.TB, string) *ttrpc.Client) {
		s := startWatched(t, proctest.Socket(t), "-shutdown-timeout", patience.String())
		c := dial(t, "unix://"+s.path)
		open := openStreams(t, c)
		l := startLoad(t, c)

		var group sync.WaitGroup
		for _, stream := range open {
			group.Go(func() {
				if err := finish(stream); err != nil {
					t.Errorf("stream while the server stops: %v", err)
				}
			})
		}
		s.Signal(syscall.SIGTERM)
		group.Wait()
		l.group.Wait()
		for _, err := range l.failed {
			switch {
			case status.Code(err) == codes.Unavailable && !errors.Is(err, ttrpc.ErrClosed):
			case stock && status.Code(interceptor.StatusError(err)) == codes.Unavailable:
			default:
				t.Errorf("a caller ended with %v, want Unavailable", err)
			}
		}
		l.wantAllAnswered(t, s)
	})
}

// wantAllAnswered fails the test unless the server ends with success and each call that it ran got an answer.
func (l *load) wantAllAnswered(t testing.TB, s *watched) {
	t.Helper()
	if code := s.ExitCode(); code != 0 {
		t.Errorf("exit code is %d, want 0", code)
	}
	if ran, answered := s.count(logUnary), l.answered.Load(); int64(ran) != answered {
		t.Errorf("the server ran %d calls and %d were answered", ran, answered)
	}
	s.wantNoRace(t)
}

// startTCP starts a server at a free TCP port, and returns options for its clients. secure turns TLS on.
func startTCP(t testing.TB, secure bool, args ...string) (*watched, ttrpcx.ClientOptions) {
	t.Helper()
	o := ttrpcx.ClientOptions{Insecure: !secure, Logger: slog.New(slog.DiscardHandler)}
	if secure {
		dir := filepath.Join(t.TempDir(), "certs")
		if p := proctest.Run(t, exec.Command(proctest.Exe(binaries(), "certs"), dir)); p.ExitCode() != 0 {
			t.Fatal("no certificates")
		}
		file := func(name string) string { return filepath.Join(dir, name) }
		o.TLS = ttrpcx.TLSFiles{Cert: file("client.pem"), Key: file("client-key.pem"), CA: file("ca.pem")}
		args = append(args, "-tls-cert", file("server.pem"), "-tls-key", file("server-key.pem"), "-tls-ca", o.TLS.CA)
	} else {
		args = append(args, "-insecure")
	}
	s := startWatched(t, "tcp://127.0.0.1:0", args...)
	_, address, _ := strings.Cut(s.Stderr(), "server start address=")
	o.Address, _, _ = strings.Cut(address, "\n")
	return s, o
}

// TestStopWithLargeAnswers stops a server over TCP while its answers of 1 to 3 MB are on their way, and while clients
// send more requests. Each call that the server ran must be answered.
func TestStopWithLargeAnswers(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, stock := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS=%v,stock=%v", secure, stock), func(t *testing.T) {
				for range *rounds {
					stopWithLargeAnswers(t, secure, stock)
				}
			})
		}
	}
}

func stopWithLargeAnswers(t *testing.T, secure, stock bool) {
	s, o := startTCP(t, secure, "-shutdown-timeout", patience.String())
	var l load
	var warm sync.WaitGroup
	var clients []*ttrpc.Client
	for range 2 {
		conn, err := map[bool]func(context.Context, ttrpcx.ClientOptions) (net.Conn, error){
			false: ttrpcx.Dial, true: ttrpcx.DialOnce,
		}[stock](t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		c := ttrpc.NewClient(&largeAnswers{Conn: conn, n: &l.answered})
		clients = append(clients, c)
		client := testv1.NewTestClient(c)
		for i := range 4 {
			warm.Add(1)
			foo := strings.Repeat("x", (1+i%3)*1_000_000)
			l.group.Go(func() {
				var once sync.Once
				defer once.Do(warm.Done)
				for {
					got, err := client.Unary(t.Context(), &testv1.UnaryRequest{Foo: foo})
					switch {
					case err == nil && got.GetFoo() == foo:
						once.Do(warm.Done)
					case !strings.Contains(fmt.Sprint(err), "shutting down"):
						return // the connection has ended
					}
				}
			})
		}
	}
	warm.Wait()
	s.Signal(syscall.SIGTERM)
	l.group.Wait()
	s.ExitCode()
	for _, c := range clients {
		if !stock { // it would connect again
			_ = c.Close()
		}
		_ = c.UserOnCloseWait(t.Context())
	}
	l.wantAllAnswered(t, s)
}

// largeAnswers counts the answers of 1 MB and more that arrive. They are not counted at the callers, because ttrpc's
// client drops some if the connection ends at once.
type largeAnswers struct {
	net.Conn
	n    *atomic.Int64
	part []byte // the start of a frame
}

func (c *largeAnswers) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.part = append(c.part, p[:n]...)
	for {
		h, ok := wire.ParseHeader(c.part)
		size := wire.HeaderSize + int(h.Length)
		if !ok || len(c.part) < size {
			return n, err
		}
		c.part = c.part[size:]
		if h.Length >= 1_000_000 {
			c.n.Add(1)
		}
	}
}

// TestHardStop keeps streams open for longer than the server waits.
func TestHardStop(t *testing.T) {
	s := startWatched(t, proctest.Socket(t), "-shutdown-timeout", "100ms")
	open := openStreams(t, dialOurs(t, "unix://"+s.path))
	s.Signal(syscall.SIGTERM)
	for _, stream := range open {
		if _, err := stream.Recv(); status.Code(interceptor.StatusError(err)) != codes.Unavailable {
			t.Errorf("a stream that was cut off got %v, want Unavailable", err)
		}
	}
	if code := s.ExitCode(); code != 1 {
		t.Errorf("exit code is %d, want 1", code)
	}
	if want := fmt.Sprintf("%d calls were cut off", streams); !strings.Contains(s.Stderr(), want) {
		t.Errorf("the server did not say %q", want)
	}
	s.wantNoRace(t)
}

// TestSecondSignal ends a server that would wait for its streams.
func TestSecondSignal(t *testing.T) {
	s := startWatched(t, proctest.Socket(t), "-shutdown-timeout", "1h")
	openStreams(t, dialOurs(t, "unix://"+s.path))
	s.Signal(syscall.SIGTERM)
	s.WaitFor("waiting for open calls")
	// The server stops catching the signal at about the time of that line, so the second signal may come too early.
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	timeout := time.After(patience)
	for {
		s.Signal(syscall.SIGTERM)
		select {
		case <-s.Ended():
		case <-again.C:
			continue
		case <-timeout:
			t.Fatal("a second signal does not end the server")
		}
		break
	}
	s.ExitCode()
	if got, ok := s.ProcessState.Sys().(syscall.WaitStatus); !ok || got.Signal() != syscall.SIGTERM {
		t.Errorf("the server ended with %v, want the signal", s.ProcessState)
	}
}

// outcomes counts the results of calls while servers are killed.
type outcomes struct {
	answered atomic.Int64
	lost     atomic.Int64 // those that may have run
	unsent   atomic.Int64

	mu    sync.Mutex
	wrong error
}

// add counts an outcome and reports whether it was an answer.
func (o *outcomes) add(err error) bool {
	err = interceptor.StatusError(err)
	text := status.Convert(err).Message()
	switch {
	case err == nil:
		o.answered.Add(1)
	case status.Code(err) == codes.Unavailable && strings.Contains(text, "may have run"):
		o.lost.Add(1)
	case status.Code(err) == codes.Unavailable && strings.Contains(text, "was not sent"):
		o.unsent.Add(1)
	default:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.wrong = err
	}
	return err == nil
}

// TestKillAndRestart kills a server under load and starts another one in its place, several times. One client connects
// again each time. Only calls in flight may be lost. The client must say so, and no call may run twice.
func TestKillAndRestart(t *testing.T) {
	address := proctest.Socket(t)
	s := startWatched(t, address)
	c := dialOurs(t, address)
	client := testv1.NewTestClient(c)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()

	var calls, echoes outcomes
	var group sync.WaitGroup
	var mu sync.Mutex
	served := make(chan struct{}) // closed and replaced when a caller that always calls has had an answer
	progress := make([]atomic.Int64, callers+streams)
	work := func(i int, o *outcomes, one func() error) {
		always := i%callAlways == 0 // also while there is no server; more callers would only delay its start
		for ctx.Err() == nil {
			ok := o.add(one())
			if ok {
				progress[i].Add(1)
			}
			mu.Lock()
			next := served
			if ok && always {
				close(served)
				served = make(chan struct{})
			}
			mu.Unlock()
			if !ok && !always {
				select {
				case <-next:
				case <-ctx.Done():
				}
			}
		}
	}
	for i := range callers {
		group.Go(func() {
			work(i, &calls, func() error {
				_, err := client.Unary(context.Background(), &testv1.UnaryRequest{Foo: "x"})
				return err
			})
		})
	}
	for i := range streams {
		var stream testv1.Test_EchoClient
		group.Go(func() {
			work(callers+i, &echoes, func() (err error) {
				if stream == nil {
					if stream, err = client.Echo(context.Background()); err != nil {
						return err
					}
				}
				if err = echo(stream); err != nil {
					stream = nil
				}
				return err
			})
		})
	}
	// each waits until every caller and stream has had an answer from the current server.
	each := func(what string) {
		t.Helper()
		var before [callers + streams]int64
		for i := range progress {
			before[i] = progress[i].Load()
		}
		s.until(t, what, func() bool {
			for i := range progress {
				if progress[i].Load() < before[i]+2 { // the first one may be from the server before
					return false
				}
			}
			return true
		})
	}

	ran := 0
	for range *rounds {
		each("serving everyone")
		lost := calls.lost.Load() + echoes.lost.Load()
		s.Signal(os.Kill)
		s.ExitCode()
		ran += s.count(logUnary)
		s.wantNoRace(t)

		s = startWatched(t, address)
		each("serving everyone again")
		// Callers may lose another call if they connect before the kernel has closed the old server's socket.
		lost = calls.lost.Load() + echoes.lost.Load() - lost
		if most := int64(callers + streams + (callers+streams)/callAlways); lost > most {
			t.Errorf("%d calls were lost, want at most %d", lost, most)
		}
	}
	stop()
	group.Wait()
	// The streams are still open. Close ends them.
	_ = c.Close()
	s.stop(t)
	ran += s.count(logUnary)

	for _, o := range []*outcomes{&calls, &echoes} {
		if o.wrong != nil {
			t.Errorf("a call got %v, want an answer or Unavailable from the client", o.wrong)
		}
	}
	answered, lost := int(calls.answered.Load()), int(calls.lost.Load())
	if ran > answered+lost { // a killed server has not written all that it has logged
		t.Errorf("servers ran %d calls; %d were answered and %d may have run", ran, answered, lost)
	}
	t.Logf("%d kills: %d calls answered, %d lost, %d not sent; %d messages echoed, %d streams lost, %d not opened",
		*rounds, answered, lost, calls.unsent.Load(), echoes.answered.Load(), echoes.lost.Load(), echoes.unsent.Load())
}
