//go:build linux

package e2e

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// holds are what peers do to make a server hold memory. Each writes on one connection, without reading, until an error.
var holds = map[string]struct {
	peers int
	write func(w io.Writer) error
}{
	"metadata of two million entries": {8, func(w io.Writer) error {
		entries := bytes.Repeat([]byte{0x2a, 0}, 2_000_000)
		return each(w, func(id uint32) []byte {
			r := request("Echo", wire.FlagRemoteOpen, nil)
			r.StreamID = id
			return wire.AppendFrame(nil, r.Header, append(r.payload, entries...))
		})
	}},
	"answers of 3 MiB": {40, func(w io.Writer) error {
		r := request("Unary", 0, &testv1.UnaryRequest{Foo: strings.Repeat("x", 3*mib)})
		return each(w, func(id uint32) []byte {
			r.StreamID = id
			return wire.AppendFrame(nil, r.Header, r.payload)
		})
	}},
	"calls at once": {40, func(w io.Writer) error {
		r := request("Unary", 0, &testv1.UnaryRequest{Foo: strings.Repeat("x", 30_000)})
		return each(w, func(id uint32) []byte {
			r.StreamID = id
			return wire.AppendFrame(nil, r.Header, r.payload)
		})
	}},
	"streams that collect": {16, func(w io.Writer) error {
		return stream(w, "Join", message(&testv1.JoinRequest{Word: strings.Repeat("x", 100_000)}))
	}},
	"streams that answer": {16, func(w io.Writer) error {
		return stream(w, "Echo", message(&testv1.EchoRequest{Message: strings.Repeat("x", mib)}))
	}},
	"messages of a call that waits": {4, func(w io.Writer) error {
		open := request("Echo", wire.FlagRemoteOpen, nil)
		id := uint32(1)
		for ; id < 2*(wire.DefaultMaxCalls+1); id += 2 {
			open.StreamID = id
			if _, err := w.Write(wire.AppendFrame(nil, open.Header, open.payload)); err != nil {
				return err
			}
		}
		empty := bytes.Repeat(wire.AppendFrame(nil, header(id-2, wire.TypeData, 0), nil), 1000)
		return each(w, func(uint32) []byte { return empty })
	}},
	"metadata of calls that run": {16, func(w io.Writer) error {
		var md []*ttrpc.KeyValue
		for n := range 220 {
			md = append(md, &ttrpc.KeyValue{Key: string(rune('!'+n%60)) + string(rune('!'+n/60))})
		}
		b, err := proto.Marshal(&ttrpc.Request{Metadata: md})
		if err != nil {
			return err
		}
		open := request("Echo", wire.FlagRemoteOpen, nil)
		return each(w, func(id uint32) []byte {
			open.StreamID = id
			return wire.AppendFrame(nil, open.Header, append(bytes.Clone(open.payload), b...))
		})
	}},
	"short frames never finished after a long one": {100, func(w io.Writer) error {
		long := request("Unary", 0, &testv1.UnaryRequest{Foo: strings.Repeat("x", 3*mib)})
		long.StreamID = 1
		short := request("Unary", 0, &testv1.UnaryRequest{Foo: strings.Repeat("x", 5000)})
		short.StreamID = 3
		b := wire.AppendFrame(nil, long.Header, long.payload)
		b = wire.AppendFrame(b, short.Header, short.payload)
		_, err := w.Write(b[:len(b)-1])
		return err
	}},
	"frames never finished": {200, func(w io.Writer) error {
		h := header(1, wire.TypeRequest, 0)
		h.Length = wire.MaxPayload
		_, err := w.Write(append(h.Append(nil), 0x1a))
		return err
	}},
	"frames of 32 kB never finished": {400, func(w io.Writer) error {
		h := header(1, wire.TypeRequest, 0)
		h.Length = 32767
		_, err := w.Write(append(h.Append(nil), 0x1a, 0xfa, 0xff, 0x01))
		return err
	}},
}

// each writes the frames of one stream after another.
func each(w io.Writer, frames func(id uint32) []byte) error {
	for id := uint32(1); ; id += 2 {
		if _, err := w.Write(frames(id)); err != nil {
			return err
		}
	}
}

// stream writes messages on many streams in turn, and ends none.
func stream(w io.Writer, method string, m frame) error {
	const streams = 32
	open := request(method, wire.FlagRemoteOpen, nil)
	for n := uint32(0); ; n++ {
		id := 2*(n%streams) + 1
		open.StreamID, m.StreamID = id, id
		var b []byte
		if n < streams {
			b = wire.AppendFrame(nil, open.Header, open.payload)
		}
		if _, err := w.Write(wire.AppendFrame(b, m.Header, m.payload)); err != nil {
			return err
		}
	}
}

// TestMemory has a user whose peers make the server hold memory. The server must stay within its bound, and answer the
// calls of another user meanwhile.
func TestMemory(t *testing.T) {
	const memory = 32 * mib
	for name, hold := range holds {
		t.Run(name, func(t *testing.T) {
			p := tcpPlace(t)
			s := startWatched(t, p.address, append(p.flags, "-max-memory", "32MiB", "-max-connections", "500",
				"-io-timeout", "5s")...)
			client := newClient(t, p.options)
			const user = 1
			var group sync.WaitGroup
			var conns []net.Conn
			for range hold.peers {
				conn, err := p.dial(user)
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
				group.Go(func() { _ = hold.write(conn) }) // until it is cut off
			}
			end := time.Now().Add(time.Second)
			var worst time.Duration
			for n := 0; time.Now().Before(end) || n < 3; n++ {
				for _, size := range []int{1, 64 << 10, mib} {
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					text := strings.Repeat("x", size)
					got, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: text})
					cancel()
					if err != nil || got.GetFoo() != text {
						t.Fatalf("another user's call of %d bytes: %v", size, err)
					}
					worst = max(worst, time.Since(start))
				}
			}
			for _, conn := range conns {
				_ = conn.Close()
			}
			group.Wait()
			t.Logf("another user's call took %v at most", worst.Round(time.Millisecond))
			s.wantPeak(t, maxRSS(memory, 500))
		})
	}
}

// maxRSS is what a server may use: what it needs by itself, 40 kB for each of -max-connections, and three times the
// memory of calls, because there is garbage that Go has not collected yet, and ttrpc keeps buffers.
func maxRSS(memory int64, conns int) int64 { return 20*mib + 3*memory + int64(conns)*40_000 }

func newClient(t testing.TB, o ttrpcx.ClientOptions) testv1.TestClient {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := ttrpcx.NewClient(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return testv1.CallTest(c)
}

// TestCallsOutliveConnections has a user who makes calls whose handlers go on without their connection, and connects
// again. The server must count them until they end.
func TestCallsOutliveConnections(t *testing.T) {
	const most, calls = 20, 8
	p := tcpPlace(t)
	s := startWatched(t, p.address, append(p.flags, "-max-user-calls", "20")...)
	r := request("Unary", 0, &testv1.UnaryRequest{Foo: "stubborn"})
	const user = 1
	for n := 0; n < 5*most; n += calls {
		conn, err := p.dial(user)
		if err != nil {
			t.Fatal(err)
		}
		for id := uint32(1); id < 2*calls; id += 2 {
			r.StreamID = id
			if _, err := conn.Write(wire.AppendFrame(nil, r.Header, r.payload)); err != nil {
				t.Fatal(err)
			}
		}
		// A call is either under way or refused, which the log tells.
		s.until(t, "dealing with all calls", func() bool {
			return s.logged[logUnary]+s.logged[logEnd] >= n+calls
		})
		_ = conn.Close()
	}
	if ran := s.count(logUnary); ran != most {
		t.Errorf("the server ran %d handlers, want %d", ran, most)
	}
	if _, err := newClient(t, p.options).Unary(t.Context(), &testv1.UnaryRequest{Foo: "x"}); err != nil {
		t.Errorf("another user's call: %v", err)
	}
	conn, err := p.dial(user)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	_, err = testv1.NewTestClient(client).Unary(t.Context(), &testv1.UnaryRequest{Foo: "x"})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the user's next call got %v, want ResourceExhausted", err)
	}
	s.stop(t)
}
