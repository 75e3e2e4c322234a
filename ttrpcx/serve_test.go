package ttrpcx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// gate blocks calls until it is opened.
type gate struct {
	entered chan struct{}
	leave   chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}, 1000), make(chan struct{})} }

func (g *gate) pass(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.leave:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start starts a call and returns when the handler runs.
func (g *gate) start(t *testing.T, client *ttrpc.Client) (result chan error) {
	t.Helper()
	result = make(chan error, 1)
	go func() { result <- call(context.Background(), client) }()
	select {
	case <-g.entered:
	case err := <-result:
		t.Fatalf("the call ended too early: %v", err)
	}
	return result
}

// untilRefused makes calls until the server refuses them because it drains.
func untilRefused(t *testing.T, client *ttrpc.Client, g *gate) {
	t.Helper()
	eventually(t, "refusal", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := call(ctx, client)
		code := status.Code(err)
		if code != codes.Unavailable && code != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a late call's error is %v, want code Unavailable", err)
		}
		return code == codes.Unavailable
	})
	for len(g.entered) > 0 {
		<-g.entered
	}
}

func TestConnectionLimits(t *testing.T) {
	for name, c := range map[string]struct {
		options ttrpcx.ServerOptions
		want    string
	}{
		"in all": {
			ttrpcx.ServerOptions{MaxConnections: 2, MaxUserConnections: 9},
			"2 connections are open, which is the limit",
		},
		"of a user":          {ttrpcx.ServerOptions{MaxUserConnections: 2}, "2 connections of uid "},
		"of a user, default": {ttrpcx.ServerOptions{MaxConnections: 3}, "2 connections of uid "},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := serve(t, c.options)
			first, second := mustDial(t, s.options()), mustDial(t, s.options())
			if err := errors.Join(call(t.Context(), first), call(t.Context(), second)); err != nil {
				t.Fatal(err)
			}
			wantHangUp(t, rawDial(t, s.address))
			s.log.wantOnly(t, "connection refused", c.want, "peer.pid=")
			if err := call(t.Context(), first); err != nil {
				t.Errorf("a connection within the limit: %v", err)
			}
			_ = second.Close()
			eventually(t, "room for another", func() bool {
				client, err := dial(t, s.options())
				return err == nil && call(t.Context(), client) == nil
			})
			_ = s.stop()
		})
	}
}

// TestHandshakesTakeNoPlace checks that connections count for a user only when it is known which user that is.
func TestHandshakesTakeNoPlace(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	s := serve(t, ttrpcx.ServerOptions{
		Address: "tcp://127.0.0.1:0", TLS: a.issue("server"), MaxConnections: 3, MaxUserConnections: 2,
	})
	for range 10 {
		_ = rawDial(t, s.address)
	}
	files := a.issue("client")
	for range 2 {
		if err := call(t.Context(), mustDial(t, s.client(files))); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = dial(t, s.client(files))
	eventually(t, "limit of the certificate", func() bool {
		return len(s.log.lines("2 connections of subject CN=client are open", `peer.subject="CN=client"`)) > 0
	})
	if err := call(t.Context(), mustDial(t, s.client(a.issue("another")))); err != nil {
		t.Error(err)
	}
	_ = s.stop()
}

// TestLogIsBounded has a peer that is refused many times.
func TestLogIsBounded(t *testing.T) {
	s := serve(t, ttrpcx.ServerOptions{MaxConnections: 1})
	if err := call(t.Context(), mustDial(t, s.options())); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conn := rawDial(t, s.address)
		wantHangUp(t, conn)
		_ = conn.Close()
	}
	_ = s.stop()
	if n := len(s.log.lines("connection refused")); n != 21 { // the line with the count contains the message, too
		t.Errorf("%d lines, want 20 and one with the count of the others", n)
	}
	if n := len(s.log.lines("held back", "lines=80")); n != 1 {
		t.Errorf("the log is %q, want a line that says that 80 lines were held back", s.log.lines())
	}
}

// TestRefusedFrames checks that the log names a peer that breaks the protocol.
func TestRefusedFrames(t *testing.T) {
	noLeaks(t)
	s := serve(t, ttrpcx.ServerOptions{})
	conn := rawDial(t, s.address)
	frame := wire.AppendFrame(nil, wire.Header{StreamID: 2, Type: wire.TypeRequest}, nil)
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	wantHangUp(t, conn)
	s.log.wantOnly(t, "connection closed", "is even", "peer.pid=")
	_ = s.stop()
}

func TestDrain(t *testing.T) {
	noLeaks(t)
	g := newGate()
	s := serve(t, ttrpcx.ServerOptions{}, unary(g.pass))
	busy, idle := mustDial(t, s.options()), mustDial(t, s.options())
	open := g.start(t, busy)
	s.cancel()
	eventually(t, "count", func() bool { return len(s.log.lines("waiting for open calls", "calls=1")) == 1 })
	for _, client := range []*ttrpc.Client{busy, idle} {
		untilRefused(t, client, g)
	}
	if _, err := dial(t, s.options()); err == nil {
		t.Error("a new connection is accepted")
	}
	select {
	case <-s.ended:
		t.Fatal("Serve has returned while a call was open")
	case err := <-open:
		t.Fatalf("the open call ended: %v", err)
	default:
	}
	close(g.leave)
	if err := <-open; err != nil {
		t.Errorf("the open call: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("Serve returns %v", err)
	}
}

// TestDrainCuts has calls that take longer than ShutdownTimeout.
func TestDrainCuts(t *testing.T) {
	noLeaks(t)
	g := newGate()
	cancelled := make(chan struct{}, 3)
	s := serve(t, ttrpcx.ServerOptions{ShutdownTimeout: 20 * time.Millisecond}, unary(func(ctx context.Context) error {
		err := g.pass(ctx)
		cancelled <- struct{}{}
		return err
	}))
	first, second := mustDial(t, s.options()), mustDial(t, s.options())
	results := []chan error{g.start(t, first), g.start(t, first), g.start(t, second)}
	wantError(t, s.stop(), "3 calls were cut off after 20ms")
	for _, r := range results {
		if err := <-r; err == nil {
			t.Error("a call that was cut off has succeeded")
		}
		<-cancelled
	}
}

// TestDrainWhileConnecting has a connection that is accepted before the drain and finishes its handshake during it. Its
// calls must get answers.
func TestDrainWhileConnecting(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	g := newGate()
	s := serveTLS(t, a.issue("server"), unary(g.pass))
	files := a.issue("client")
	busy := mustDial(t, s.client(files))
	open := g.start(t, busy)

	asked, answer := make(chan struct{}), make(chan struct{})
	tlsConn := tls.Client(rawDial(t, s.address), &tls.Config{
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			close(asked)
			<-answer
			pair := loadPair(t, files)
			return &pair, nil
		},
	})
	connected := make(chan error, 1)
	go func() { connected <- tlsConn.Handshake() }()
	<-asked
	s.cancel()
	untilRefused(t, busy, g)
	close(answer)
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(tlsConn)
	if err := call(t.Context(), client); status.Code(err) != codes.Unavailable {
		t.Errorf("the call's error is %v, want code Unavailable", err)
	}
	_ = client.Close()
	close(g.leave)
	if err := <-open; err != nil {
		t.Errorf("the open call: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// TestDrainUnderLoad stops servers while clients make calls without a pause. Each call that could be sent must get an
// answer: its handler's, or Unavailable.
func TestDrainUnderLoad(t *testing.T) {
	for range 20 {
		var handled, answered, sent, received atomic.Int64
		s := serve(t, ttrpcx.ServerOptions{}, unary(func(context.Context) error { handled.Add(1); return nil }))
		var group sync.WaitGroup
		var clients []*ttrpc.Client
		for range 4 {
			conn := rawDial(t, s.address)
			client := ttrpc.NewClient(&counted{Conn: conn, sent: &sent, received: &received})
			clients = append(clients, client)
			if err := call(t.Context(), client); err != nil { // so that the server has accepted the connection
				t.Fatal(err)
			}
			for range 4 {
				group.Go(func() {
					for {
						err := call(t.Context(), client)
						switch {
						case err == nil:
							answered.Add(1)
						case status.Code(err) == codes.Unavailable:
						case errors.Is(err, ttrpc.ErrClosed): // the request could not be written
							return
						default:
							t.Errorf("a call's error is %v", err)
							return
						}
					}
				})
			}
		}
		eventually(t, "call", func() bool { return answered.Load() > 100 })
		if err := s.stop(); err != nil {
			t.Errorf("Serve returns %v", err)
		}
		group.Wait()
		for _, client := range clients {
			_ = client.UserOnCloseWait(t.Context()) // then the client has read all answers
		}
		if h, a := handled.Load(), answered.Load(); h < a {
			t.Fatalf("%d calls were handled and %d succeeded", h, a)
		}
		if n, a := sent.Load(), received.Load(); n != a && runtime.GOOS == "linux" {
			t.Fatalf("%d calls were sent and %d answered", n, a)
		}
	}
}

// counted counts the requests that could be written and the answers that arrived. ttrpc writes each short request in
// one Write. The answers are counted here because ttrpc's client drops some of them if the connection ends at once.
type counted struct {
	net.Conn
	sent, received *atomic.Int64
	read           []byte // the start of a frame
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil {
		c.sent.Add(1)
	}
	return n, err
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read = append(c.read, p[:n]...)
	for {
		h, ok := wire.ParseHeader(c.read)
		size := wire.HeaderSize + int(h.Length)
		if !ok || len(c.read) < size {
			return n, err
		}
		c.read = c.read[size:]
		c.received.Add(1)
	}
}

// TestPeersThatDoNotRead checks that Serve ends in time, although many connections wait for peers that do not read.
func TestPeersThatDoNotRead(t *testing.T) {
	noLeaks(t)
	s := serve(t, ttrpcx.ServerOptions{ShutdownTimeout: time.Millisecond, MaxMemory: 1 << 30})
	const peers = 40
	request := marshalRequest(t, strings.Repeat("x", 300<<10)) // the answer does not fit into the socket's buffers
	var conns []net.Conn
	for range peers {
		conn := rawDial(t, s.address)
		conns = append(conns, conn)
		for id := uint32(1); id < 6; id += 2 {
			frame := wire.AppendFrame(nil, wire.Header{StreamID: id, Type: wire.TypeRequest}, request)
			if _, err := conn.Write(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantError(t, s.stop(), "cut off after 1ms")
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// scripted is a listener whose Accept returns the values that the test sends.
type scripted struct {
	net.Listener
	next chan any // error or net.Conn
}

func (l *scripted) Accept() (net.Conn, error) {
	switch v := (<-l.next).(type) {
	case error:
		return nil, v
	case net.Conn:
		return v, nil
	}
	return nil, net.ErrClosed
}

// TestAcceptErrors has errors that may go away, and one that nobody has heard of. The server goes on after each.
func TestAcceptErrors(t *testing.T) {
	l, err := net.Listen("unix", strings.TrimSuffix(socketPath(t), "/d/s")+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := make(chan any, 3)
	log := new(journal)
	s := &served{t: t, log: log}
	s.run(ttrpcx.NewListener(&scripted{l, next}, ttrpcx.ServerOptions{Logger: log.logger()}))
	for _, failure := range []error{
		&net.OpError{Op: "accept", Err: syscall.EMFILE},
		&net.OpError{Op: "accept", Err: syscall.ENOMEM},
		errors.New("never seen before"),
	} {
		next <- failure
		log.wantOnly(t, "accept failed; trying again", failure.Error())
		log.clear()
		conn := rawDial(t, s.address)
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		next <- accepted
		client := ttrpc.NewClient(conn)
		if err := call(t.Context(), client); err != nil {
			t.Errorf("after %v: %v", failure, err)
		}
		_ = client.Close()
	}
	close(next)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// TestStopWhileAcceptFails stops a server that waits because it has no descriptors left.
func TestStopWhileAcceptFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan any, 20)
	for range 20 {
		next <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	close(next)
	s := &served{t: t, log: new(journal)}
	s.run(ttrpcx.NewListener(&scripted{l, next}, ttrpcx.ServerOptions{Logger: s.log.logger()}))
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// TestServerThatWasClosed checks that the peers of a closed ttrpc.Server are disconnected, and that Serve ends as
// usual.
func TestServerThatWasClosed(t *testing.T) {
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	log := new(journal)
	l, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: socketPath(t), Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ttrpcx.Serve(ctx, server, l) }()
	wantHangUp(t, rawDial(t, l.String()))
	log.wantOnly(t, "ttrpc refused a connection", "server closed")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDialErrors(t *testing.T) {
	path := socketPath(t)
	for address, want := range map[string]string{
		path:                     "no such file or directory (is the server running?)",
		"tcp://127.0.0.1:1":      "connection refused (is the server running?)",
		"unix-abstract:nobody-x": "connection refused (is the server running?)",
	} {
		_, err := dial(t, ttrpcx.ClientOptions{Address: address, Insecure: strings.HasPrefix(address, "tcp")})
		wantError(t, err, "connect to ", address, want)
	}
}
