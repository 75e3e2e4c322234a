package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

const (
	mayHaveRun = "may have run"
	notSent    = "was not sent"
)

// tally counts how often each text reaches a handler. The first word that a call sends is its name.
type tally struct {
	mu   sync.Mutex
	runs map[string]int
	hold chan struct{} // if not nil, handlers answer when it is closed
}

func (e *tally) service() testservice.Service {
	return testservice.Service{Text: func(ctx context.Context, text string) (string, error) {
		e.mu.Lock()
		if e.runs == nil {
			e.runs = make(map[string]int)
		}
		e.runs[text]++
		e.mu.Unlock()
		if text == "refuse" {
			return "", status.Error(codes.Unavailable, "draining")
		}
		if e.hold != nil {
			select {
			case <-e.hold:
			case <-ctx.Done():
			}
		}
		return text, nil
	}}
}

func (e *tally) count(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[name]
}

// A caller makes one call under a name and returns an error unless the whole result is right.
type caller func(ctx context.Context, c testv1.TestClient, name string) error

var callers = map[string]caller{
	"unary": func(ctx context.Context, c testv1.TestClient, name string) error {
		resp, err := c.Unary(ctx, &testv1.UnaryRequest{Foo: name, Bar: "bar"})
		if err == nil && (resp.Foo != name || resp.Bar != "bar") {
			err = fmt.Errorf("got %v", resp)
		}
		return err
	},
	"split": func(ctx context.Context, c testv1.TestClient, name string) error {
		s, err := c.Split(ctx, &testv1.SplitRequest{Text: name + " a b"})
		if err != nil {
			return err
		}
		for _, want := range []string{name, "a", "b"} {
			resp, err := s.Recv()
			if err != nil {
				return err
			}
			if resp.Word != want {
				return fmt.Errorf("got %v, want %s", resp, want)
			}
		}
		if _, err = s.Recv(); err == io.EOF {
			return nil
		}
		return err
	},
	"join": func(ctx context.Context, c testv1.TestClient, name string) error {
		s, err := c.Join(ctx)
		if err != nil {
			return err
		}
		for _, w := range []string{name, "a", "b"} {
			if err := s.Send(&testv1.JoinRequest{Word: w}); err != nil {
				return err
			}
		}
		resp, err := s.CloseAndRecv()
		if err == nil && resp.Text != name+" a b" {
			err = fmt.Errorf("got %v", resp)
		}
		return err
	},
	"echo": func(ctx context.Context, c testv1.TestClient, name string) error {
		s, err := c.Echo(ctx)
		if err != nil {
			return err
		}
		for _, message := range []string{name, "a"} {
			if err := s.Send(&testv1.EchoRequest{Message: message}); err != nil {
				return err
			}
			resp, err := s.Recv()
			if err != nil {
				return err
			}
			if resp.Message != message {
				return fmt.Errorf("got %v", resp)
			}
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		if _, err = s.Recv(); err == io.EOF {
			return nil
		}
		return err
	},
}

// wantOutcome checks that what a call returned is what the Conn promises, given how often it ran.
func wantOutcome(t *testing.T, name string, runs int, err error) {
	t.Helper()
	switch {
	case err == nil:
		if runs != 1 {
			t.Errorf("%s: succeeded and ran %d times", name, runs)
		}
	case status.Code(err) != codes.Unavailable:
		t.Errorf("%s: %v is not Unavailable", name, err)
	case strings.Contains(err.Error(), notSent):
		if runs != 0 {
			t.Errorf("%s: %v, but ran %d times", name, err, runs)
		}
	case strings.Contains(err.Error(), mayHaveRun):
		if runs > 1 {
			t.Errorf("%s: ran %d times", name, runs)
		}
	default:
		t.Errorf("%s: %v says neither that it was not sent nor that it may have run", name, err)
	}
}

// A killable drops everything at once, as a killed process does. ttrpc.Server.Close leaves busy connections open, and
// their handlers running even after the peer has closed them.
type killable struct {
	net.Listener
	mu   sync.Mutex
	all  []net.Conn
	done chan struct{}
}

func serveOn(t *testing.T, l net.Listener, svc *tally) *killable {
	t.Helper()
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	testv1.RegisterTestService(srv, svc.service())
	k := &killable{Listener: l, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		srv.Serve(context.Background(), k)
	}()
	return k
}

func serveUnix(t *testing.T, path string, svc *tally) *killable {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, svc)
}

func (k *killable) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		c = eofConn{c}
		k.all = append(k.all, c)
	}
	return c, err
}

// eofConn makes every read error an io.EOF. At any other one ttrpc.Server leaves the connection's handlers running.
type eofConn struct{ net.Conn }

func (c eofConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

func (k *killable) kill() {
	k.Close()
	<-k.done
	k.drop()
}

// drop closes the connections and lets new ones come.
func (k *killable) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.all {
		c.Close()
	}
}

// pipes is a listener whose connections are in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func unixDialer(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s")
}

// quiet keeps what the tests provoke out of their output.
func quiet(o ClientOptions) ClientOptions {
	o.Logger = slog.New(slog.DiscardHandler)
	return o
}

// newClient returns a client over a Conn, which is closed with the test.
func newClient(
	t *testing.T, dial func(context.Context) (net.Conn, error), opts ClientOptions,
) (*ClientConn, *ttrpc.Client, testv1.TestClient) {
	t.Helper()
	r, err := NewClientConn(t.Context(), dial, quiet(opts))
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(r)
	t.Cleanup(func() {
		c.Close()
		c.UserOnCloseWait(context.Background())
	})
	return r, c, testv1.NewTestClient(c)
}

// wantGoroutines waits until no more goroutines run than there were.
func wantGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, want %d\n%s", runtime.NumGoroutine(), before,
				buf[:runtime.Stack(buf, true)])
		}
	}
}

// Calls of all kinds go on while the server is killed and started again and again.
func TestRestarts(t *testing.T) {
	const restarts, workers, between = 25, 4, 40
	for _, wait := range []bool{false, true} {
		t.Run(fmt.Sprintf("WaitForReady=%v", wait), func(t *testing.T) {
			before := runtime.NumGoroutine()
			path, svc := socketPath(t), &tally{}
			server := serveUnix(t, path, svc)
			r, err := NewClientConn(t.Context(), unixDialer(path), quiet(ClientOptions{
				BackoffMax: time.Millisecond, WaitForReady: wait,
			}))
			if err != nil {
				t.Fatal(err)
			}
			c := ttrpc.NewClient(r)
			stub := testv1.NewTestClient(c)

			type result struct {
				name string
				err  error
			}
			var (
				wg      sync.WaitGroup
				results = make(chan result)
				stop    atomic.Bool
			)
			for kind, call := range callers {
				for w := range workers {
					wg.Go(func() {
						for i := 0; !stop.Load(); i++ {
							name := fmt.Sprintf("%s-%d-%d", kind, w, i)
							results <- result{name, call(context.Background(), stub, name)}
						}
					})
				}
			}
			all := make(map[string]error)
			successes := 0
			collect := func() {
				res := <-results
				all[res.name] = res.err
				if res.err == nil {
					successes++
				}
			}
			for range restarts {
				for want := successes + between; successes < want; {
					collect()
				}
				server.kill()
				if !wait {
					// So that some calls find no server.
					for want := len(all) + between; len(all) < want; {
						collect()
					}
				}
				server = serveUnix(t, path, svc)
			}
			for want := successes + between; successes < want; {
				collect()
			}
			stop.Store(true)
			go func() { wg.Wait(); close(results) }()
			for res := range results {
				all[res.name] = res.err
			}

			c.Close()
			if err := c.UserOnCloseWait(t.Context()); err != nil {
				t.Error(err)
			}
			server.kill()
			wantGoroutines(t, before)
			var lost, unsent int
			for name, err := range all {
				wantOutcome(t, name, svc.count(name), err)
				switch {
				case err == nil:
				case strings.Contains(err.Error(), mayHaveRun):
					lost++
				default:
					unsent++
				}
			}
			if lost == 0 || wait == (unsent > 0) {
				t.Errorf("%d calls lost, %d not sent", lost, unsent)
			}
			t.Logf("%d calls: %d succeeded, %d lost, %d not sent", len(all), len(all)-lost-unsent, lost, unsent)
		})
	}
}

// cut is a connection that dies after some bytes in one direction.
type cut struct {
	net.Conn
	mu           sync.Mutex
	reads, write int // bytes left; negative for no bound
}

func take(left *int, n int) (allowed int, die bool) {
	if *left < 0 {
		return n, false
	}
	if n < *left {
		*left -= n
		return n, false
	}
	n, *left = *left, 0
	return n, true
}

func (c *cut) Read(p []byte) (int, error) {
	c.mu.Lock()
	n, die := take(&c.reads, len(p))
	c.mu.Unlock()
	if n == 0 && die {
		c.Close()
		return 0, syscall.ECONNRESET
	}
	m, err := c.Conn.Read(p[:n])
	c.mu.Lock()
	if c.reads >= 0 {
		c.reads += n - m
	}
	c.mu.Unlock()
	return m, err
}

func (c *cut) Write(p []byte) (int, error) {
	c.mu.Lock()
	n, die := take(&c.write, len(p))
	c.mu.Unlock()
	m, err := c.Conn.Write(p[:n])
	if die && n < len(p) {
		c.Close()
		return m, syscall.EPIPE
	}
	return m, err
}

// The connection dies at every byte of an exchange, once in each direction. Every call ends as promised, and the calls
// after it succeed.
func TestEveryCut(t *testing.T) {
	kinds := []string{"unary", "split", "join", "echo"}
	for _, wait := range []bool{false, true} {
		for _, dir := range []string{"read", "written"} {
			t.Run(fmt.Sprintf("WaitForReady=%v/%s", wait, dir), func(t *testing.T) {
				failures := 0
				for k := 0; ; k++ {
					svc, p := &tally{}, newPipes()
					server := serveOn(t, p, svc)
					var dials int
					r, err := NewClientConn(t.Context(), func(ctx context.Context) (net.Conn, error) {
						conn, err := p.dial(ctx)
						if dials++; dials > 1 {
							return conn, err
						}
						if dir == "read" {
							return &cut{Conn: conn, reads: k, write: -1}, err
						}
						return &cut{Conn: conn, reads: -1, write: k}, err
					}, quiet(ClientOptions{BackoffMax: 1, WaitForReady: wait}))
					if err != nil {
						t.Fatal(err)
					}
					c := ttrpc.NewClient(r)
					stub := testv1.NewTestClient(c)
					results := make(map[string]error)
					failed := 0
					for round := range 2 {
						for _, kind := range kinds {
							name := fmt.Sprintf("%s-%d-%d", kind, k, round)
							results[name] = callers[kind](t.Context(), stub, name)
							if results[name] != nil {
								failed++
							}
						}
					}
					c.Close()
					c.UserOnCloseWait(t.Context())
					server.kill()
					for name, err := range results {
						wantOutcome(t, name, svc.count(name), err)
						if wait && err != nil && strings.Contains(err.Error(), notSent) {
							t.Errorf("%s: %v although it could wait", name, err)
						}
					}
					if failed > 1 {
						t.Errorf("cut at %d: %d calls failed", k, failed)
					}
					failures += failed
					if dials == 1 {
						t.Logf("%d cuts, %d calls lost", k, failures)
						break
					}
				}
				if failures == 0 {
					t.Error("no cut was noticed")
				}
			})
		}
	}
}

// peer is the far end of a connection, spoken to in frames.
type peer struct {
	t    *testing.T
	conn net.Conn
}

// want reads one frame and checks what it is, and returns its payload.
func (p peer) want(id uint32, typ Type) []byte {
	p.t.Helper()
	h, payload := readFrame(p.t, p.conn)
	if h.StreamID != id || h.Type != typ {
		p.t.Fatalf("got %+v, want type %d on stream %d", h, typ, id)
	}
	return payload
}

func (p peer) send(id uint32, typ Type, flags Flags, payload []byte) {
	p.t.Helper()
	write(p.t, p.conn, id, typ, flags, payload)
}

func readFrame(t *testing.T, r io.Reader) (Header, []byte) {
	t.Helper()
	var b [HeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		t.Fatal(err)
	}
	h, _ := ParseHeader(b[:])
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	return h, payload
}

// wantAnswer reads the frame with which r ends the call itself.
func wantAnswer(t *testing.T, r io.Reader, id uint32, message string) {
	t.Helper()
	h, payload := readFrame(t, r)
	var resp ttrpc.Response
	if err := proto.Unmarshal(payload, &resp); err != nil {
		t.Fatal(err)
	}
	if h.StreamID != id || h.Type != TypeResponse || codes.Code(resp.Status.GetCode()) != codes.Unavailable ||
		!strings.Contains(resp.Status.GetMessage(), message) {
		t.Fatalf("got %+v %v, want Unavailable %q on stream %d", h, resp.Status, message, id)
	}
}

func write(t *testing.T, w io.Writer, id uint32, typ Type, flags Flags, payload []byte) {
	t.Helper()
	if _, err := w.Write(AppendFrame(nil, Header{StreamID: id, Type: typ, Flags: flags}, payload)); err != nil {
		t.Error(err)
	}
}

func requestOf(t *testing.T, timeout time.Duration) []byte {
	t.Helper()
	b, err := proto.Marshal(&ttrpc.Request{Service: "s", Method: "m", TimeoutNano: int64(timeout)})
	if err != nil {
		t.Error(err)
	}
	return b
}

// newRaw returns a Conn without a client, and the peers that its connections lead to.
func newRaw(t *testing.T, opts ClientOptions, wrap func(net.Conn) net.Conn) (*ClientConn, func() peer) {
	t.Helper()
	peers := make(chan net.Conn, 10)
	r, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
		client, server := net.Pipe()
		peers <- server
		if wrap != nil {
			client = wrap(client)
		}
		return client, nil
	}, quiet(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, func() peer { return peer{t, <-peers} }
}

// What a lost stream still sends never reaches the next connection, where its stream does not exist, nor is it a reason
// to make one.
func TestDropsDataOfLostStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int32
		r, next := newRaw(t, ClientOptions{}, func(c net.Conn) net.Conn { conns.Add(1); return c })
		p := next()
		time.Sleep(defaultBackoffMax)
		go write(t, r, 1, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
		p.want(1, TypeRequest)
		p.conn.Close()
		wantAnswer(t, r, 1, mayHaveRun)

		write(t, r, 1, TypeData, 0, []byte("lost"))
		synctest.Wait()
		if conns.Load() != 1 {
			t.Error("dialled for what is dropped")
		}
		write(t, r, 3, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
		p = next()
		p.want(3, TypeRequest)
		go func() {
			write(t, r, 1, TypeData, FlagRemoteClosed|FlagNoData, nil)
			write(t, r, 3, TypeData, 0, []byte("kept"))
		}()
		if got := p.want(3, TypeData); string(got) != "kept" {
			t.Errorf("got %q", got)
		}
	})
}

// A stream that opens while there is no connection keeps its messages and their order.
func TestQueuesStream(t *testing.T) {
	r, next := newRaw(t, ClientOptions{BackoffMax: 1, WaitForReady: true}, nil)
	p := next()
	p.conn.Close()
	// In pieces, as ttrpc writes long frames out of one buffer that it uses again.
	var all []byte
	all = AppendFrame(all, Header{StreamID: 1, Type: TypeRequest, Flags: FlagRemoteOpen}, requestOf(t, 0))
	all = AppendFrame(all, Header{StreamID: 1, Type: TypeData}, []byte("first message"))
	all = AppendFrame(all, Header{StreamID: 1, Type: TypeData}, []byte("other message"))
	all = AppendFrame(all, Header{StreamID: 1, Type: TypeData, Flags: FlagRemoteClosed | FlagNoData}, nil)
	piece := make([]byte, HeaderSize+1)
	for rest := all; len(rest) > 0; {
		n := copy(piece, rest)
		if _, err := r.Write(piece[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	go r.Read(make([]byte, 1))
	got := make([]byte, len(all))
	if _, err := io.ReadFull(next().conn, got); err != nil || !bytes.Equal(got, all) {
		t.Errorf("got %q, want %q, %v", got, all, err)
	}
}

// A call that the server has ended is not ended once more when the connection is lost.
func TestForgetsEndedCalls(t *testing.T) {
	r, next := newRaw(t, ClientOptions{}, nil)
	p := next()
	for id, end := range map[uint32]Header{
		1: {Type: TypeResponse},
		3: {Type: TypeData, Flags: FlagRemoteClosed | FlagNoData},
		5: {Type: TypeData, Flags: FlagRemoteClosed},
	} {
		go write(t, r, id, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
		p.want(id, TypeRequest)
		go p.send(id, end.Type, end.Flags, nil)
		if h, _ := readFrame(t, r); h.StreamID != id {
			t.Fatalf("got %+v", h)
		}
	}
	go write(t, r, 7, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
	p.want(7, TypeRequest)
	go p.send(7, TypeData, 0, []byte("message"))
	readFrame(t, r)
	p.conn.Close()
	wantAnswer(t, r, 7, mayHaveRun)
	write(t, r, 9, TypeRequest, 0, requestOf(t, 0))
	p = next()
	p.want(9, TypeRequest)
	go p.send(9, TypeResponse, 0, nil)
	if h, _ := readFrame(t, r); h.StreamID != 9 {
		t.Errorf("got %+v", h)
	}
}

// No answer gets into the middle of a frame that is handed out in parts, and none calls a call unsent that was sent.
func TestAnswersBetweenFrames(t *testing.T) {
	var broken atomic.Bool
	r, next := newRaw(t, ClientOptions{WaitForReady: true}, func(c net.Conn) net.Conn {
		return deaf{Conn: c, broken: &broken}
	})
	p := next()
	go write(t, r, 1, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
	p.want(1, TypeRequest)
	const size = MaxPayload + 1
	go p.conn.Write(Header{Length: size, StreamID: 1, Type: TypeData}.Append(nil))
	var b [HeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	write(t, r, 3, TypeRequest, 0, make([]byte, MaxPayload))
	write(t, r, 5, TypeRequest, 0, nil)
	write(t, r, 1, TypeData, 0, []byte("does not fit, and has nowhere to go"))
	p.conn.Close()
	if _, err := io.CopyN(io.Discard, r, size); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, r, 5, notSent)
	wantAnswer(t, r, 1, mayHaveRun)
}

// A request that was written as a whole is not sent again, whatever the connection says of it.
func TestNeverResends(t *testing.T) {
	r, next := newRaw(t, ClientOptions{WaitForReady: true}, func(c net.Conn) net.Conn { return liar{c} })
	p := next()
	go write(t, r, 1, TypeRequest, 0, requestOf(t, 0))
	p.want(1, TypeRequest)
	p.conn.Close()
	wantAnswer(t, r, 1, mayHaveRun)
}

// liar writes everything and says that it failed.
type liar struct{ net.Conn }

func (c liar) Write(p []byte) (int, error) {
	n, _ := c.Conn.Write(p)
	return n, syscall.EPIPE
}

// deaf fails to write when it is told to, and can still be read.
type deaf struct {
	net.Conn
	broken     *atomic.Bool
	noDeadline bool
}

func (c deaf) Write(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func (c deaf) SetReadDeadline(t time.Time) error {
	if c.noDeadline {
		return os.ErrNoDeadline
	}
	return c.Conn.SetReadDeadline(t)
}

// Answers that were under way when the connection broke are delivered, and the request that broke it goes to the next.
func TestReadsToTheEnd(t *testing.T) {
	var broken atomic.Bool
	conns := 0
	r, next := newRaw(t, ClientOptions{}, func(c net.Conn) net.Conn {
		if conns++; conns > 1 {
			return c
		}
		return deaf{Conn: c, broken: &broken}
	})
	p := next()
	go write(t, r, 1, TypeRequest, 0, requestOf(t, 0))
	p.want(1, TypeRequest)
	go write(t, r, 3, TypeRequest, 0, requestOf(t, 0))
	p.want(3, TypeRequest)

	broken.Store(true)
	write(t, r, 5, TypeRequest, 0, requestOf(t, 0))
	go func() {
		p.send(1, TypeResponse, 0, []byte("answer"))
		p.conn.Close()
	}()
	if h, got := readFrame(t, r); h.StreamID != 1 || string(got) != "answer" {
		t.Errorf("got %+v %q", h, got)
	}
	wantAnswer(t, r, 3, mayHaveRun)
	p = next()
	p.want(5, TypeRequest)
}

// A connection that cannot be written but does not end is given up.
func TestGivesUpDeafConnection(t *testing.T) {
	for _, noDeadline := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var broken atomic.Bool
			r, next := newRaw(t, ClientOptions{}, func(c net.Conn) net.Conn {
				return deaf{Conn: c, broken: &broken, noDeadline: noDeadline}
			})
			p := next()
			go write(t, r, 1, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
			p.want(1, TypeRequest)
			broken.Store(true)
			start := time.Now()
			write(t, r, 1, TypeData, 0, []byte("x"))
			wantAnswer(t, r, 1, mayHaveRun)
			if want := map[bool]time.Duration{false: linger}[noDeadline]; time.Since(start) != want {
				t.Errorf("gave up after %v, want %v", time.Since(start), want)
			}
		})
	}
}

// A failed attempt answers the calls at once; the next is made by the first call after the pause, and none without one.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials int
		var down error = &net.OpError{Op: "dial", Net: "unix", Err: errors.New("no server \xff")}
		client, server := net.Pipe()
		_, _, stub := newClient(t, func(context.Context) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, down
			}
			return client, nil
		}, ClientOptions{})
		time.Sleep(defaultBackoffMax)
		server.Close()
		synctest.Wait()
		call := func() {
			t.Helper()
			err := callers["unary"](t.Context(), stub, "x")
			if wantOutcome(t, "x", 0, err); !strings.Contains(err.Error(), "no server \uFFFD") {
				t.Fatalf("%v does not tell the dial error", err)
			}
		}

		pause := float64(backoffBase)
		for want := 2; want < 20; want++ {
			call()
			if dials != want {
				t.Fatalf("%d dials, want %d", dials, want)
			}
			time.Sleep(time.Duration(pause*(1-backoffJitter)) - 1)
			call()
			if dials != want {
				t.Fatalf("dialled again less than %v after attempt %d", time.Duration(pause), want)
			}
			time.Sleep(time.Duration(pause*2*backoffJitter) + 2)
			if dials != want {
				t.Fatal("dialled without a call")
			}
			pause = min(pause*backoffFactor, float64(defaultBackoffMax))
		}
	})
}

// A call that waits for a server has attempts made for it until one succeeds.
func TestWaitForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const up = 12
		svc, p := &tally{}, newPipes()
		server := serveOn(t, p, svc)
		defer server.kill()
		var attempts []time.Time
		_, _, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
			attempts = append(attempts, time.Now())
			if n := len(attempts); n > 1 && n < up {
				return nil, syscall.ECONNREFUSED
			}
			return p.dial(ctx)
		}, ClientOptions{WaitForReady: true})
		time.Sleep(time.Hour)
		server.drop()
		synctest.Wait()
		if len(attempts) != 1 {
			t.Fatal("dialled without a call")
		}
		var wg sync.WaitGroup
		for kind, call := range callers {
			wg.Go(func() {
				if err := call(t.Context(), stub, kind); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			})
		}
		wg.Wait()
		for kind := range callers {
			if n := svc.count(kind); n != 1 {
				t.Errorf("%s ran %d times", kind, n)
			}
		}
		if len(attempts) != up {
			t.Fatalf("%d attempts, want %d", len(attempts), up)
		}
		pause := float64(backoffBase)
		spread := false
		for i := 2; i < up; i++ {
			got := float64(attempts[i].Sub(attempts[i-1]))
			if got < pause*(1-backoffJitter)-1 || got > pause*(1+backoffJitter)+1 {
				t.Errorf("pause %d is %v, want %v or 20 %% more or less", i, time.Duration(got), time.Duration(pause))
			}
			spread = spread || math.Abs(got-pause) > pause/1000
			pause = min(pause*backoffFactor, float64(defaultBackoffMax))
		}
		if !spread {
			t.Error("no pause has a random part")
		}
	})
}

// A call whose deadline passes while it waits is never sent, and no attempt is made for it any more.
func TestExpires(t *testing.T) {
	for _, wait := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			svc, p := &tally{}, newPipes()
			server := serveOn(t, p, svc)
			defer server.kill()
			var down atomic.Bool
			var dials atomic.Int32
			_, _, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
				dials.Add(1)
				if down.Load() {
					if !wait {
						time.Sleep(10 * time.Second)
						return p.dial(ctx)
					}
					return nil, syscall.ECONNREFUSED
				}
				return p.dial(ctx)
			}, ClientOptions{WaitForReady: wait})
			time.Sleep(time.Hour)
			down.Store(true)
			server.drop()

			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := callers["unary"](ctx, stub, "late"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			time.Sleep(time.Minute)
			n := dials.Load()
			time.Sleep(time.Hour)
			if dials.Load() != n {
				t.Error("dialled for nobody")
			}
			down.Store(false)
			if err := callers["unary"](t.Context(), stub, "new"); err != nil {
				t.Error(err)
			}
			if svc.count("late") != 0 {
				t.Error("ran after its deadline")
			}
		})
	}
}

// A call that was too late when it was made does not even cause an attempt. ttrpc marks it by a negative timeout.
func TestExpiredBefore(t *testing.T) {
	var conns atomic.Int32
	r, next := newRaw(t, ClientOptions{WaitForReady: true, BackoffMax: 1}, func(c net.Conn) net.Conn {
		conns.Add(1)
		return c
	})
	next().conn.Close()
	write(t, r, 1, TypeRequest, 0, requestOf(t, -1))
	wantAnswer(t, r, 1, notSent)
	if conns.Load() != 1 {
		t.Error("dialled for nobody")
	}
}

// An attempt ends after a time even if dial would wait for ever.
func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		dials := 0
		_, _, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
			if dials++; dials == 1 {
				return client, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}, ClientOptions{})
		time.Sleep(defaultBackoffMax)
		server.Close()
		start := time.Now()
		wantOutcome(t, "x", 0, callers["unary"](t.Context(), stub, "x"))
		if time.Since(start) != attemptTimeout {
			t.Errorf("waited %v", time.Since(start))
		}
	})
}

// A server that accepts and hangs up is dialled no more often than one that is down.
func TestHangUp(t *testing.T) {
	for _, wait := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var dials atomic.Int32
			p := newPipes()
			server := serveOn(t, p, &tally{})
			_, c, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
				if dials.Add(1) == 1 {
					return p.dial(ctx)
				}
				client, server := net.Pipe()
				server.Close()
				return client, nil
			}, ClientOptions{WaitForReady: wait})
			// The first connection is a good one, which says nothing about the others.
			if err := callers["unary"](t.Context(), stub, "x"); err != nil {
				t.Fatal(err)
			}
			server.kill()
			done := make(chan error, 1)
			go func() {
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					err := callers["unary"](t.Context(), stub, "x")
					if errors.Is(err, ttrpc.ErrClosed) {
						done <- err
						return
					}
					wantOutcome(t, "x", 0, err)
				}
				done <- nil
			}()
			time.Sleep(2 * time.Minute)
			// 10 pauses grow to the bound within 14 s; 5 s less 20 % is the shortest of those after.
			if n := dials.Load(); n < 10 || wait && n > 10+120/4 || !wait && n > 10+60/4 {
				t.Errorf("%d dials", n)
			}
			c.Close()
			if err := <-done; wait != errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What waits is bounded; what does not fit is answered at once, and with it all that was to be sent for the same call.
func TestQueueFull(t *testing.T) {
	peers, hold := make(chan net.Conn, 2), make(chan struct{})
	dials := 0
	r, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
		if dials++; dials > 1 {
			<-hold
		}
		client, server := net.Pipe()
		peers <- server
		return client, nil
	}, quiet(ClientOptions{WaitForReady: true, BackoffMax: 1}))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	(<-peers).Close()

	quarter := make([]byte, MaxPayload/4-HeaderSize)
	for id := uint32(1); id <= 7; id += 2 {
		write(t, r, id, TypeRequest, FlagRemoteOpen, quarter)
	}
	write(t, r, 9, TypeRequest, 0, []byte("one too many"))
	wantAnswer(t, r, 9, notSent)
	write(t, r, 3, TypeData, 0, []byte("one too many"))
	wantAnswer(t, r, 3, notSent)
	write(t, r, 3, TypeData, 0, []byte("of a call that is over"))
	write(t, r, 11, TypeRequest, 0, []byte("there is room again"))

	close(hold)
	go io.Copy(io.Discard, r)
	p := peer{t, <-peers}
	for _, id := range []uint32{1, 5, 7, 11} {
		p.want(id, TypeRequest)
	}
}

// A frame over the limit fails its own call and no other, even if it never comes to its end.
func TestOversize(t *testing.T) {
	const size = MaxPayload + 100_000
	over := append(Header{Length: size, StreamID: 1, Type: TypeResponse}.Append(nil), make([]byte, size)...)
	for _, n := range []int{HeaderSize, HeaderSize + 1, 5000, len(over)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			peers := make(chan net.Conn, 2)
			_, _, stub := newClient(t, func(context.Context) (net.Conn, error) {
				client, server := net.Pipe()
				peers <- server
				return client, nil
			}, ClientOptions{})
			done := make(chan error)
			p := peer{t, <-peers}
			go func() { done <- callers["unary"](t.Context(), stub, "x") }()
			p.want(1, TypeRequest)
			if _, err := p.conn.Write(over[:n]); err != nil {
				t.Fatal(err)
			}
			if n < len(over) {
				p.conn.Close()
			}
			if err := <-done; status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("got %v", err)
			}

			go func() { done <- callers["unary"](t.Context(), stub, "y") }()
			if n < len(over) {
				p = peer{t, <-peers}
			}
			p.want(3, TypeRequest)
			payload, _ := proto.Marshal(&testv1.UnaryResponse{Foo: "y", Bar: "bar"})
			resp, _ := proto.Marshal(&ttrpc.Response{Payload: payload})
			p.send(3, TypeResponse, 0, resp)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Frames survive any way of cutting them for Read and Write.
func TestSplits(t *testing.T) {
	r, next := newRaw(t, ClientOptions{}, nil)
	p := next()
	go io.Copy(p.conn, p.conn)
	payload := []byte("some payload")
	var all []byte
	for id := uint32(1); id < 9; id += 2 {
		all = AppendFrame(all, Header{StreamID: id, Type: TypeRequest, Flags: FlagRemoteOpen}, payload[:id])
		all = AppendFrame(all, Header{StreamID: id, Type: TypeData}, nil)
	}
	for _, size := range []int{1, 3, HeaderSize - 1, HeaderSize, HeaderSize + 1, 40, len(all)} {
		go func() {
			for b := all; len(b) > 0; {
				n := min(size, len(b))
				if m, err := r.Write(b[:n]); m != n || err != nil {
					t.Errorf("wrote %d of %d: %v", m, n, err)
				}
				b = b[n:]
			}
		}()
		got := make([]byte, len(all))
		for n := 0; n < len(got); {
			m, err := r.Read(got[n:min(n+size, len(got))])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if !bytes.Equal(got, all) {
			t.Errorf("size %d: got %x, want %x", size, got, all)
		}
	}

	over := Header{Length: MaxPayload + 1, StreamID: 11, Type: TypeRequest}.Append(nil)
	if n, err := r.Write(over); n != 0 || err == nil {
		t.Errorf("wrote %d bytes of a frame over the limit, %v", n, err)
	}
}

// Payloads of all sizes go through, and the next small call after them.
func TestSizes(t *testing.T) {
	path := socketPath(t)
	server := serveUnix(t, path, &tally{})
	defer server.kill()
	r, c, stub := newClient(t, unixDialer(path), ClientOptions{})
	for _, size := range []int{0, 1, 4000, 4096, 5000, 64 << 10, 1 << 20, MaxPayload - 100} {
		for _, bar := range []string{strings.Repeat("x", size), "small"} {
			resp, err := stub.Unary(t.Context(), &testv1.UnaryRequest{Bar: bar})
			if err != nil {
				t.Fatalf("%d bytes: %v", len(bar), err)
			}
			if resp.Bar != bar {
				t.Errorf("%d bytes came back as %d", len(bar), len(resp.Bar))
			}
		}
	}
	c.Close()
	if err := c.UserOnCloseWait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.reader.part != nil || r.reader.backs != nil || r.cut.part != nil || r.out.queue != nil {
		t.Error("keeps a buffer")
	}
}

// What a server that drains refuses is its own answer, and no reason to connect again.
func TestPassesRefusal(t *testing.T) {
	p := newPipes()
	server := serveOn(t, p, &tally{})
	defer server.kill()
	_, _, stub := newClient(t, p.dial, ClientOptions{})
	_, err := stub.Unary(t.Context(), &testv1.UnaryRequest{Foo: "refuse"})
	if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "draining" {
		t.Errorf("got %v", err)
	}
	if err := callers["unary"](t.Context(), stub, "x"); err != nil {
		t.Error(err)
	}
	if len(server.all) != 1 {
		t.Errorf("%d connections", len(server.all))
	}
}

func TestClose(t *testing.T) {
	t.Run("connected", func(t *testing.T) {
		svc, p := &tally{hold: make(chan struct{})}, newPipes()
		server := serveOn(t, p, svc)
		defer server.kill()
		r, c, stub := newClient(t, p.dial, ClientOptions{})
		done := make(chan error)
		go func() { done <- callers["unary"](t.Context(), stub, "x") }()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, ttrpc.ErrClosed) {
			t.Errorf("open call: %v", err)
		}
		if err := c.UserOnCloseWait(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := r.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})

	t.Run("dialling", func(t *testing.T) {
		for _, late := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				lateClient, lateServer := net.Pipe()
				dials := 0
				r, _, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
					if dials++; dials == 1 {
						return client, nil
					}
					<-ctx.Done()
					if late {
						return lateClient, nil
					}
					return nil, ctx.Err()
				}, ClientOptions{})
				time.Sleep(defaultBackoffMax)
				server.Close()
				done := make(chan error)
				go func() { done <- callers["unary"](t.Context(), stub, "x") }()
				synctest.Wait()
				if dials != 2 {
					t.Errorf("%d dials", dials)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if err := <-done; !errors.Is(err, ttrpc.ErrClosed) {
					t.Errorf("waiting call: %v", err)
				}
				if late {
					if _, err := lateServer.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("connection made too late: %v", err)
					}
				}
			})
		}
	})
}

func TestNew(t *testing.T) {
	down := errors.New("down")
	t.Run("error", func(t *testing.T) {
		dial := func(context.Context) (net.Conn, error) { return nil, down }
		r, err := NewClientConn(t.Context(), dial, ClientOptions{})
		if r != nil || err != down {
			t.Errorf("got %v, %v", r, err)
		}
	})
	t.Run("wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, _ := net.Pipe()
			dials := 0
			r, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
				if dials++; dials < 5 {
					return nil, down
				}
				return client, nil
			}, ClientOptions{WaitForReady: true})
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			if dials != 5 {
				t.Errorf("%d dials", dials)
			}
		})
	})
	t.Run("wait in vain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			dial := func(context.Context) (net.Conn, error) { return nil, down }
			_, err := NewClientConn(ctx, dial, ClientOptions{WaitForReady: true})
			if !errors.Is(err, down) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// Addresses outlive the connection. Deadlines would end a ttrpc.Client and are refused.
func TestAddresses(t *testing.T) {
	path := socketPath(t)
	server := serveUnix(t, path, &tally{})
	r, _, stub := newClient(t, unixDialer(path), ClientOptions{})
	server.kill()
	wantOutcome(t, "x", 0, callers["unary"](t.Context(), stub, "x"))
	if got := r.RemoteAddr().String(); got != path {
		t.Errorf("remote address %q, want %q", got, path)
	}
	if got := r.LocalAddr(); got.Network() != "unix" || got.String() == path {
		t.Errorf("local address %q", got)
	}
	for _, set := range []func(time.Time) error{r.SetDeadline, r.SetReadDeadline, r.SetWriteDeadline} {
		if err := set(time.Now()); !errors.Is(err, os.ErrNoDeadline) {
			t.Errorf("got %v", err)
		}
	}
}

// A connected Conn needs no goroutine.
func TestNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	r, next := newRaw(t, ClientOptions{}, nil)
	p := next()
	go write(t, r, 1, TypeRequest, 0, requestOf(t, 0))
	p.want(1, TypeRequest)
	go p.send(1, TypeResponse, 0, nil)
	readFrame(t, r)
	p.conn.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		r.Read(make([]byte, HeaderSize))
	}()
	write(t, r, 3, TypeRequest, 0, requestOf(t, 0))
	p = next()
	p.want(3, TypeRequest)
	p.send(3, TypeResponse, 0, nil)
	<-read
	wantGoroutines(t, before)
}

// A request that was answered while it was being written is not sent to the next server, where it would run.
func TestAnsweredWhileWriting(t *testing.T) {
	for _, wait := range []bool{false, true} {
		r, next := newRaw(t, ClientOptions{BackoffMax: 1, WaitForReady: wait}, nil)
		p := next()
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			write(t, r, 1, TypeRequest, 0, make([]byte, 2<<20))
		}()
		if _, err := io.ReadFull(p.conn, make([]byte, HeaderSize)); err != nil {
			t.Fatal(err)
		}
		go p.conn.Write(refusal(1, codes.Unavailable, "draining"))
		wantAnswer(t, r, 1, "draining")
		p.conn.Close()
		<-wrote
		go r.Read(make([]byte, 1))
		write(t, r, 3, TypeRequest, 0, requestOf(t, 0))
		next().want(3, TypeRequest)
	}
}

// When the connection is lost, requests that were still queued go to the next one; only of the others it is said that
// they may have run.
func TestQueuedWasNotSent(t *testing.T) {
	r, next := newRaw(t, ClientOptions{BackoffMax: 1}, nil)
	p := next()
	const sent = 5
	for id := uint32(1); id < 2*sent; id += 2 {
		go write(t, r, id, TypeRequest, 0, requestOf(t, 0))
		p.want(id, TypeRequest)
	}
	go p.send(1, TypeResponse, 0, nil)
	readFrame(t, r)
	queued := []uint32{101, 103, 105}
	for _, id := range queued {
		write(t, r, id, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
	}
	write(t, r, 103, TypeData, 0, []byte("message"))
	write(t, r, 3, TypeData, 0, []byte("of a call that was sent"))
	if _, err := io.ReadFull(p.conn, make([]byte, HeaderSize)); err != nil { // of 101
		t.Fatal(err)
	}
	p.conn.Close()
	for range sent - 1 {
		h, payload := readFrame(t, r)
		if h.StreamID >= 2*sent || !bytes.Contains(payload, []byte(mayHaveRun)) {
			t.Errorf("got %+v, %q", h, payload)
		}
	}
	p = next()
	for _, id := range queued {
		p.want(id, TypeRequest)
	}
	p.want(103, TypeData)
}

// A request that waited has what is left of its timeout when it is sent.
func TestTimeoutGoesOnWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		peers := make(chan net.Conn, 1)
		r, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
			if down.Load() {
				return nil, syscall.ECONNREFUSED
			}
			client, server := net.Pipe()
			peers <- server
			return client, nil
		}, quiet(ClientOptions{WaitForReady: true, BackoffMax: 100 * time.Millisecond}))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := peer{t, <-peers}
		const timeout = 10 * time.Second
		wantLeft := func(id uint32, made time.Time) {
			t.Helper()
			var req ttrpc.Request
			if err := proto.Unmarshal(p.want(id, TypeRequest), &req); err != nil {
				t.Fatal(err)
			}
			waited := time.Since(made)
			left := time.Duration(req.TimeoutNano)
			if waited < 3*time.Second || left != timeout-waited || req.Service != "s" || req.Method != "m" {
				t.Errorf("got %v, want %v to be left", &req, timeout-waited)
			}
		}

		// A server that takes nothing is as good as none.
		made := time.Now()
		go write(t, r, 1, TypeRequest, 0, requestOf(t, timeout))
		time.Sleep(3 * time.Second)
		go r.Read(make([]byte, 1))
		p.conn.Close()
		p = peer{t, <-peers}
		wantLeft(1, made)

		down.Store(true)
		p.conn.Close()
		synctest.Wait()
		made = time.Now()
		write(t, r, 3, TypeRequest, 0, requestOf(t, timeout))
		time.Sleep(4 * time.Second)
		write(t, r, 5, TypeRequest, 0, requestOf(t, time.Second))
		write(t, r, 7, TypeRequest, 0, requestOf(t, 0))
		time.Sleep(time.Second)
		down.Store(false)
		p = peer{t, <-peers}
		wantLeft(3, made)
		p.want(7, TypeRequest)
	})
}

// Calls that the server never answers, as when they were cancelled and their handlers hang, cost next to nothing.
func TestForgottenCallsCostLittle(t *testing.T) {
	const calls = 500_000
	r := newClientConn(t, &replay{}, ClientOptions{})
	heap := func() uint64 {
		r.mu.Lock()
		for r.out.flushing {
			r.out.changed.Wait()
		}
		r.mu.Unlock()
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // empties pools
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	b := request(1, 0)
	for id := uint32(1); id < 2*calls; id += 2 {
		binary.BigEndian.PutUint32(b[4:], id)
		if _, err := r.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if grown := int64(heap()) - int64(before); grown > 3*calls {
		t.Errorf("%d calls cost %d bytes", calls, grown)
	}
	runtime.KeepAlive(r)
}

// A server that speaks something else is not taken for one that sends a very long frame.
func TestNoFrames(t *testing.T) {
	r, next := newRaw(t, ClientOptions{}, nil)
	p := next()
	go write(t, r, 1, TypeRequest, 0, requestOf(t, 0))
	p.want(1, TypeRequest)
	go p.conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	wantAnswer(t, r, 1, "none of ttrpc's")
}

// ends is a connection that closes its owner when it ends.
type ends struct {
	replay
	r     io.Reader
	owner *ClientConn
}

func (c *ends) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil {
		c.owner.Close()
	}
	return n, err
}

func (c *ends) Close() error { return c.owner.Close() }

// FuzzClientRead checks that ttrpc gets the same bytes however they arrive: whole frames and no others.
func FuzzClientRead(f *testing.F) {
	data := dataFrame(1, 0, "message")
	long := AppendFrame(nil, Header{StreamID: 3, Type: TypeResponse}, make([]byte, ttrpcBuffer))
	over := Header{Length: MaxPayload + 9, StreamID: 3, Type: TypeResponse}.Append(nil)
	f.Add(frames(data, long, data, data[:5]), uint16(7), uint16(100))
	f.Add(frames(data, long[:len(long)-1]), uint16(4095), uint16(4096))
	f.Add(frames(data, over, []byte("xy")), uint16(1), uint16(1))
	f.Add(frames(data, []byte("HTTP/1.1 400 Bad Request")), uint16(3), uint16(5000))
	f.Fuzz(func(t *testing.T, b []byte, step, size uint16) {
		var want []byte
		for rest := b; len(rest) >= HeaderSize; {
			h, _ := ParseHeader(rest)
			n := HeaderSize + int64(h.Length)
			if h.Length > MaxPayload+1<<16 && h.Type >= TypeRequest && h.Type <= TypeData {
				t.Skip("too long to wait for")
			}
			if h.Type < TypeRequest || h.Type > TypeData || n > int64(len(rest)) && h.Length <= MaxPayload {
				break
			}
			have := min(n, int64(len(rest)))
			want, rest = append(want, rest[:have]...), rest[have:]
			want = append(want, make([]byte, n-have)...)
		}
		conn := &ends{r: &stepReader{bytes.Clone(b), int(step) + 1}}
		c := newClientConn(t, conn, ClientOptions{})
		conn.owner = c
		var got []byte
		p := make([]byte, int(size)+1)
		for {
			n, err := c.Read(p)
			if got = append(got, p[:n]...); err != nil {
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	})
}

// patterned returns a request's payload of n bytes in which no two places look the same.
func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b[:n/4] {
		binary.BigEndian.PutUint32(b[4*i:], uint32(i))
	}
	return b
}

// A server that takes nothing blocks no call for long. What is half written is finished when the server goes on. If the
// connection is lost, it goes to the next one as a whole, unless the server has answered it.
func TestStuckWrites(t *testing.T) {
	for _, then := range []string{"goes on", "is lost", "answers and is lost"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("unix", socketPath(t))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			accept := func() peer {
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return peer{t, conn}
			}
			r, err := NewClientConn(t.Context(), unixDialer(l.Addr().String()),
				quiet(ClientOptions{BackoffMax: 1, IOTimeout: time.Hour}))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := accept()
			long := patterned(MaxPayload / 4) // so that there is room for one more
			write(t, r, 1, TypeRequest, FlagRemoteOpen, long)
			write(t, r, 1, TypeData, 0, []byte("message"))
			last := uint32(1) // that was written
			refused := func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.answers) > 0
			}
			for ; !refused(); last += 2 {
				write(t, r, last+2, TypeRequest, 0, long[last:])
			}
			wantAnswer(t, r, last, notSent)
			if then == "answers and is lost" {
				go p.conn.Write(refusal(1, codes.Unavailable, "draining"))
				wantAnswer(t, r, 1, "draining")
			}
			go io.Copy(io.Discard, r)
			if then != "goes on" {
				if _, err := io.ReadFull(p.conn, make([]byte, len(long)/2)); err != nil {
					t.Fatal(err)
				}
				p.conn.Close()
				p = accept()
			}
			if then != "answers and is lost" {
				if got := p.want(1, TypeRequest); !bytes.Equal(got, long) {
					t.Error("the request is not what was written")
				}
				if got := p.want(1, TypeData); string(got) != "message" {
					t.Errorf("got %q", got)
				}
			}
			for id := uint32(3); id < last; id += 2 {
				if got := p.want(id, TypeRequest); !bytes.Equal(got, long[id-2:]) {
					t.Errorf("request %d is not what was written", id)
				}
			}
			write(t, r, last+2, TypeRequest, 0, requestOf(t, 0))
			p.want(last+2, TypeRequest)
		})
	}
}

// Answers that the server does not send reach a reader that waits for the server: at once, if it has handed out no part
// of a frame, and else after that frame. What the server has sent until then is not lost.
func TestAnswersWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, next := newRaw(t, ClientOptions{IOTimeout: time.Minute}, nil)
		p := next()
		go io.Copy(io.Discard, p.conn)
		frames := make(chan Header, 100)
		go func() {
			for head := make([]byte, HeaderSize); ; {
				if _, err := io.ReadFull(r, head); err != nil {
					return
				}
				h, _ := ParseHeader(head)
				_, _ = io.CopyN(io.Discard, r, int64(h.Length))
				frames <- h
			}
		}()
		want := func(id uint32) {
			t.Helper()
			synctest.Wait()
			select {
			case h := <-frames:
				if h.StreamID != id || h.Type != TypeResponse {
					t.Errorf("got %+v, want an answer to call %d", h, id)
				}
			default:
				t.Errorf("got nothing, want an answer to call %d", id)
			}
		}
		for id := uint32(1); id <= 13; id += 2 {
			write(t, r, id, TypeRequest, 0, requestOf(t, 0))
		}
		refuse := func(id uint32) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notSent(id, errStuck)
		}
		refuse(1)
		want(1)

		answer := AppendFrame(nil, Header{StreamID: 3, Type: TypeResponse}, patterned(100_000))
		mustWrite := func(b []byte) {
			t.Helper()
			if _, err := p.conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		mustWrite(answer[:50_000])
		refuse(7)
		want(7)
		mustWrite(answer[50_000:])
		want(3)

		answer = append(Header{Length: MaxPayload + 100, StreamID: 5, Type: TypeResponse}.Append(nil),
			make([]byte, MaxPayload+100)...)
		mustWrite(answer[:MaxPayload])
		refuse(9)
		synctest.Wait()
		if len(frames) > 0 {
			t.Errorf("got %+v in the midst of a frame", <-frames)
		}
		mustWrite(answer[MaxPayload:])
		synctest.Wait()
		if h := <-frames; h.StreamID != 5 {
			t.Errorf("got %+v, want the rest of the frame first", h)
		}
		want(9)

		p.conn.Close()
		synctest.Wait()
		if len(frames) != 2 {
			t.Errorf("got %d answers to the 2 calls that are open when the connection is lost", len(frames))
		}
	})
}

// A call that the server has not answered long after its deadline is ended here and forgotten, also if its caller still
// waits. A call without a deadline is not.
func TestForgetsCallsAfterTheirDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, calls = 10, 10_000
		r, next := newRaw(t, ClientOptions{IOTimeout: time.Minute}, nil)
		go io.Copy(io.Discard, next().conn)
		write(t, r, 1, TypeRequest, FlagRemoteOpen, requestOf(t, 0))
		id := uint32(1)
		for range rounds {
			for range calls {
				id += 2
				write(t, r, id, TypeRequest, 0, requestOf(t, time.Second))
			}
			time.Sleep(2 * time.Minute)
		}
		r.mu.Lock()
		open, words, first := r.calls.n, len(r.calls.words), r.calls.has(1)
		r.mu.Unlock()
		if open > 4*calls || words > 4*calls/32 || !first {
			t.Errorf("%d of %d calls are left, in %d words; the first is left: %v", open, rounds*calls, words, first)
		}
		ended := make(map[uint32]bool)
		for range rounds*calls + 1 - open {
			h, payload := readFrame(t, r)
			var resp ttrpc.Response
			if err := proto.Unmarshal(payload, &resp); err != nil || ended[h.StreamID] || h.StreamID == 1 ||
				codes.Code(resp.Status.GetCode()) != codes.DeadlineExceeded {
				t.Fatalf("got %+v, %v, %v", h, resp.Status, err)
			}
			ended[h.StreamID] = true
		}
	})
}

// The timeout of a request is found wherever the frame is cut, but for cuts into the fields' lengths.
func TestTimeoutOfFrame(t *testing.T) {
	for _, timeout := range []time.Duration{0, 1, time.Hour, -1, math.MaxInt64} {
		for _, size := range []int{0, 1, 3000, 10_000} {
			payload, err := proto.Marshal(&ttrpc.Request{
				Service: "s", Method: "m", Payload: make([]byte, size), TimeoutNano: int64(timeout),
				Metadata: []*ttrpc.KeyValue{{Key: "k", Value: "v"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			b := AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, payload)
			if got := (&frame{tail: b}).timeout(); got != timeout {
				t.Errorf("got %v, want %v", got, timeout)
			}
			for i := HeaderSize; i < len(b); i++ {
				got := (&frame{head: b[:i], tail: b[i:]}).timeout()
				if got != timeout && (got != 0 || i == ttrpcBuffer) {
					t.Errorf("cut at %d of %d: got %v, want %v", i, len(b), got, timeout)
				}
			}
		}
	}
	for _, garbage := range []string{"", "\xff", "\x22\x01", "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x0b"} {
		b := AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, []byte(garbage))
		if got := (&frame{tail: b}).timeout(); got != 0 {
			t.Errorf("%q: got %v", garbage, got)
		}
	}
}

// While requests are gathered, the connection breaks after each number of bytes. Those of which it took the last byte
// may have run, and all others go to the next connection, in order.
func TestEveryCutWhileGathering(t *testing.T) {
	const calls, size = 16, 20
	long := HeaderSize + largeFrame // of the last one
	total := (calls-1)*(HeaderSize+size) + long
	for k := 0; k <= total; k++ {
		if k > (calls-1)*(HeaderSize+size)+20 && k < total-2 {
			k = total - 2
		}
		peers := make(chan net.Conn, 2)
		dials := 0
		r, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
			client, server := net.Pipe()
			peers <- server
			if dials++; dials == 1 {
				client = &cut{Conn: client, reads: -1, write: k}
			}
			return client, nil
		}, quiet(ClientOptions{BackoffMax: 1}))
		if err != nil {
			t.Fatal(err)
		}
		first := <-peers
		go io.Copy(io.Discard, first)
		for i := range uint32(calls) {
			n := size
			if i == calls-1 {
				n = largeFrame
			}
			write(t, r, 2*i+1, TypeRequest, 0, make([]byte, n))
		}
		taken := uint32(min(k/(HeaderSize+size), calls-1))
		if k == total {
			taken = calls
		}
		first.Close()
		for range taken {
			if h, payload := readFrame(t, r); h.StreamID >= 2*taken || !bytes.Contains(payload, []byte(mayHaveRun)) {
				t.Errorf("cut at %d: got %+v, %q", k, h, payload)
			}
		}
		go io.Copy(io.Discard, r)
		if taken < calls {
			p := peer{t, <-peers}
			for i := taken; i < calls; i++ {
				p.want(2*i+1, TypeRequest)
			}
		}
		r.Close()
	}
}
