//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

const mib = 1 << 20

// dial connects to the server.
func (w *watched) dial(t testing.TB) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// wantPeak fails the test if the server has ever used more memory, unless it has the race detector, which needs several
// times as much.
func (w *watched) wantPeak(t testing.TB, limit int64) {
	t.Helper()
	peak := w.memory(t, "VmHWM")
	t.Logf("the server's peak RSS is %.1f MiB", float64(peak)/mib)
	if peak > limit && !proctest.Race {
		t.Errorf("the server's peak RSS is over %d MiB", limit/mib)
	}
}

// wantCut waits until the server has closed the connection.
func wantCut(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server has not closed the connection: %v", err)
	}
}

// newSession returns a session on a new connection, and reads its answers.
func (w *watched) newSession(t testing.TB) *session {
	t.Helper()
	s := &session{peer: &peer{victim: &victim{}, rng: rand.New(rand.NewPCG(0, 0))}, next: 1}
	s.start(w.dial(t))
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPeerNeverReads asks for 10,000 answers of 64 KiB, which is 640 MiB, and reads none.
func TestPeerNeverReads(t *testing.T) {
	s := startWatched(t, proctest.Socket(t), "-io-timeout", "1s", "-max-memory", "16MiB")
	conn := s.dial(t)
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	ask := request("Unary", 0, &testv1.UnaryRequest{Foo: strings.Repeat("x", 64<<10)})
	sent := 0
	var err error
	for id := uint32(1); sent < 10000; id += 2 {
		ask.StreamID = id
		if _, err = conn.Write(wire.AppendFrame(nil, ask.Header, ask.payload)); err != nil {
			break
		}
		sent++
	}
	t.Logf("the server took %d requests and ran %d calls", sent, s.count(logUnary))
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server ended the connection with %v, want it closed", err)
	}
	s.until(t, "closing the connection", func() bool { return s.logged[logClosed] == 1 })
	s.wantServed(t)
	s.wantPeak(t, 64*mib)
	s.stop(t)
}

// TestTenThousandStreams opens 10,000 streams on one connection and ends none. The server may run -max-calls handlers,
// and must refuse each further stream when none has ended for -io-timeout.
func TestTenThousandStreams(t *testing.T) {
	const opened, allowed = 10000, 256
	s := startWatched(t, proctest.Socket(t), "-io-timeout", "1s")
	peer := s.newSession(t)
	var ops []*op
	var b []byte
	for range opened {
		o := &op{name: "Echo", frames: []frame{request("Echo", wire.FlagRemoteOpen, nil)}}
		peer.identify(o)
		b = wire.AppendFrame(b, o.frames[0].Header, o.frames[0].payload)
		ops = append(ops, o)
	}
	if _, err := peer.conn.Write(b); err != nil {
		t.Fatal(err)
	}
	for _, o := range ops[allowed:] {
		o.met = wantCode(codes.ResourceExhausted)
		if err := peer.answer(o); err != nil {
			t.Fatalf("stream %d: %v", o.id, err)
		}
	}
	s.wantServed(t)
	for _, o := range ops[:allowed] {
		m, end := message(&testv1.EchoRequest{Message: "x"}), lastMessage()
		m.StreamID, end.StreamID = o.id, o.id
		b = wire.AppendFrame(nil, m.Header, m.payload)
		if _, err := peer.conn.Write(wire.AppendFrame(b, end.Header, nil)); err != nil {
			t.Fatal(err)
		}
		o.met = wantMessages(&testv1.EchoResponse{Message: "x"})
	}
	for _, o := range ops[:allowed] {
		if err := peer.answer(o); err != nil {
			t.Fatalf("stream %d: %v", o.id, err)
		}
	}
	s.until(t, "the end of all handlers", func() bool { return s.logged[logEnd] == allowed+1 })
	if got := s.count(logEcho); got != allowed {
		t.Errorf("the server ran %d handlers, want %d", got, allowed)
	}
	s.wantPeak(t, 64*mib)
	s.stop(t)
}

// TestTenThousandCalls sends 10,000 unary calls at once on one connection. None is lost.
func TestTenThousandCalls(t *testing.T) {
	const calls = 10000
	s := startWatched(t, proctest.Socket(t))
	peer := s.newSession(t)
	var ops []*op
	var b bytes.Buffer
	for range calls {
		o := &op{
			name:   "Unary",
			frames: []frame{request("Unary", 0, &testv1.UnaryRequest{Foo: "x"})},
			met:    wantMessage(&testv1.UnaryResponse{Foo: "x"}),
		}
		peer.identify(o)
		b.Write(wire.AppendFrame(nil, o.frames[0].Header, o.frames[0].payload))
		ops = append(ops, o)
	}
	if _, err := peer.conn.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, o := range ops {
		if err := peer.answer(o); err != nil {
			t.Fatalf("call %d: %v", o.id, err)
		}
	}
	s.wantPeak(t, 64*mib)
	s.stop(t)
	if got := s.count(logUnary); got != calls {
		t.Errorf("the server ran %d handlers, want %d", got, calls)
	}
}

// TestAnnouncedAndNotSent has 500 peers that each start a frame of 4 MiB and never finish it. Buffers for all would
// take 2 GiB. The server may receive 64 MiB at once. The other peers wait, and are then disconnected, too.
func TestAnnouncedAndNotSent(t *testing.T) {
	const peers = 500
	h := header(1, wire.TypeRequest, 0)
	h.Length = wire.MaxPayload
	payload := make([]byte, wire.MaxPayload)
	binary.PutUvarint(payload[copy(payload, "\x1a"):], wire.MaxPayload-5) // the length of the payload field
	for name, sent := range map[string]int{"one byte": 1, "all but one byte": wire.MaxPayload - 1} {
		t.Run(name, func(t *testing.T) {
			s := startWatched(t, proctest.Socket(t), "-io-timeout", "100ms")
			b := append(h.Append(nil), payload[:sent]...)
			var group sync.WaitGroup
			for range peers {
				conn := s.dial(t)
				group.Go(func() {
					// The write may fail, because the server stops reading. wantCut checks the connection.
					_ = conn.SetWriteDeadline(time.Now().Add(patience))
					_, _ = conn.Write(b)
					wantCut(t, conn)
				})
			}
			s.wantServed(t)
			group.Wait()
			s.wantServed(t)
			// 64 MiB of buffers in use, as much that the garbage collector has not freed yet, and the connections.
			s.wantPeak(t, 256*mib)
			s.stop(t)
		})
	}
}

// TestIdleConnections opens 10,000 connections, makes a call on each, leaves them idle, and makes another call on each.
func TestIdleConnections(t *testing.T) {
	idle := 10000
	if proctest.Race {
		idle = 1000 // each takes six times the memory
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < uint64(idle)+100 {
		proctest.Missing(t, "descriptors for %d connections: raise the limit of %d with `ulimit -Hn`", idle, limit.Max)
	}
	s := startWatched(t, proctest.Socket(t), "-io-timeout", "1s")
	s.wantServed(t)
	before := s.memory(t, "VmRSS")
	ask := request("Unary", 0, &testv1.UnaryRequest{Foo: "x"})
	ask.StreamID = 1
	call := func(conn net.Conn) {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(wire.AppendFrame(nil, ask.Header, ask.payload)); err != nil {
			t.Fatal(err)
		}
		answer, err := readFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := wantMessage(&testv1.UnaryResponse{Foo: "x"})([]frame{answer}); !ok || err != nil {
			t.Fatalf("got %+v, %v", answer.Header, err)
		}
	}
	conns := make([]net.Conn, idle)
	for i := range conns {
		conns[i] = s.dial(t)
		call(conns[i])
	}
	after := s.memory(t, "VmRSS")
	perConnection := (after - before) / int64(idle)
	t.Logf("%d idle connections take %.1f MiB more, %d bytes each", idle, float64(after-before)/mib, perConnection)
	if perConnection > 40<<10 && !proctest.Race {
		t.Errorf("an idle connection takes %d bytes", perConnection)
	}
	if p := proctest.Run(t, client("-address", "unix://"+s.path)); p.ExitCode() != 0 {
		t.Errorf("another client's exit code is %d, want 0", p.ExitCode())
	}
	ask.StreamID = 3
	for _, conn := range conns { // they are still open
		call(conn)
	}
	s.stop(t)
}
