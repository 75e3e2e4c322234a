package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// callFrame returns the frame that opens a call of the example service.
func callFrame(id uint32, method string, more ...func(*ttrpc.Request)) []byte {
	r := &ttrpc.Request{Service: "test.v1.Test", Method: method}
	for _, f := range more {
		f(r)
	}
	b, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	return AppendFrame(nil, Header{StreamID: id, Type: TypeRequest}, b)
}

func withPayload(n int) func(*ttrpc.Request) {
	return func(r *ttrpc.Request) {
		r.Payload, _ = proto.Marshal(&testv1.UnaryRequest{Foo: strings.Repeat("x", n)})
	}
}

func withTimeout(d time.Duration) func(*ttrpc.Request) {
	return func(r *ttrpc.Request) { r.TimeoutNano = int64(d) }
}

func dataFrame(id uint32, flags Flags, payload string) []byte {
	return AppendFrame(nil, Header{StreamID: id, Type: TypeData, Flags: flags}, []byte(payload))
}

func frames(f ...[]byte) []byte { return bytes.Join(f, nil) }

const end = FlagRemoteClosed | FlagNoData

// guarded returns a peer's end of a pipe to a stock server behind a Guard. In a synctest bubble a goroutine that such a
// server leaves behind fails the test.
func guarded(t *testing.T, g *Guard, service testservice.Service) (peer net.Conn, conn *GuardedConn) {
	t.Helper()
	peer, inner := net.Pipe()
	conn = g.Wrap(inner, "")
	serve(t, conn, service)
	t.Cleanup(func() { _ = peer.Close() })
	return peer, conn
}

// readResponse reads one response's frame and returns its stream id and status code.
func readResponse(t *testing.T, r io.Reader) (uint32, codes.Code) {
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
	var resp ttrpc.Response
	if h.Type != TypeResponse {
		t.Fatalf("got a frame of type %d for stream %d", h.Type, h.StreamID)
	}
	if err := proto.Unmarshal(payload, &resp); err != nil {
		t.Fatal(err)
	}
	return h.StreamID, codes.Code(resp.GetStatus().GetCode())
}

func mustWrite(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	unary, split, join := callFrame(1, "Unary"), callFrame(1, "Split"), callFrame(1, "Join")
	for _, test := range []struct {
		name   string
		sent   []byte
		reason string
	}{
		{"data to unary", frames(unary, dataFrame(1, 0, "")), "takes none"},
		{"end of unary", frames(unary, dataFrame(1, end, "")), "takes none"},
		{"data to unary flagged as open", frames(
			AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest, Flags: FlagRemoteOpen}, unary[HeaderSize:]),
			dataFrame(1, 0, "x")), "takes none"},
		{"data to server streaming", frames(split, dataFrame(1, 0, "x")), "takes none"},
		{"end of server streaming", frames(split, dataFrame(1, end, "")), "takes none"},
		{
			"data to second call", frames(callFrame(1, "Nothing"), callFrame(3, "Unary"), dataFrame(3, 0, "")),
			"takes none",
		},
		{"data after end", frames(join, dataFrame(1, end, ""), dataFrame(1, 0, "x")), "after its end"},
		{"end after end", frames(join, dataFrame(1, end, ""), dataFrame(1, end, "")), "after its end"},
		{"data before request", dataFrame(1, 0, "x"), "never opened"},
		{"data beyond requests", frames(join, dataFrame(3, 0, "x")), "never opened"},
		{"end with payload", frames(join, dataFrame(1, FlagRemoteClosed, "x")), "has a payload"},
		{"no data with payload", frames(join, dataFrame(1, FlagNoData, "x")), "has a payload"},
		{"even id", callFrame(2, "Unary"), "even"},
		{"repeated id", frames(unary, unary), "not higher"},
		{"lower id", frames(callFrame(5, "Unary"), callFrame(3, "Unary")), "not higher"},
		{"type zero", AppendFrame(nil, Header{StreamID: 1}, nil), "type 0"},
		{"response", AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, nil), "type 2"},
		{"type four", frames(unary, AppendFrame(nil, Header{StreamID: 1, Type: 4}, nil)), "type 4"},
		{
			"malformed request", AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, []byte("\x0a\x05a")),
			"malformed",
		},
		{
			"name not in UTF-8", AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, []byte("\x0a\x01\xff")),
			"malformed",
		},
		{"another protocol", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "over the limit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGuard(GuardOptions{})
				peer, conn := guarded(t, g, blocking(untilEnd))
				other, otherConn := guarded(t, g, testservice.Service{})

				go func() { _, _ = peer.Write(test.sent) }() // may be cut off midway
				if _, err := io.Copy(io.Discard, peer); err != nil {
					t.Errorf("the connection did not end: %v", err)
				}
				if err := conn.Err(); err == nil || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("refused for %v, want a reason with %q", err, test.reason)
				}
				<-conn.Drain() // an ended connection has nothing to wait for

				mustWrite(t, other, callFrame(1, "Unary"))
				if _, code := readResponse(t, other); code != codes.OK {
					t.Errorf("another connection: got %v", code)
				}
				if err := otherConn.Err(); err != nil {
					t.Errorf("another connection was refused: %v", err)
				}
			})
		})
	}
}

func TestAllowed(t *testing.T) {
	for _, test := range []struct {
		name string
		sent []byte
		want map[uint32]codes.Code
	}{
		{"unknown method", callFrame(1, "Nothing"), map[uint32]codes.Code{1: codes.Unimplemented}},
		{
			"unknown service", AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, nil),
			map[uint32]codes.Code{1: codes.Unimplemented},
		},
		{
			"late data", frames(callFrame(1, "Unary"), callFrame(5, "Join"), dataFrame(5, end, "")),
			map[uint32]codes.Code{1: 0, 5: 0},
		},
		{
			"no message", frames(callFrame(1, "Join"), dataFrame(1, FlagNoData, ""), dataFrame(1, end, "")),
			map[uint32]codes.Code{1: 0},
		},
		{"highest id", callFrame(1<<32-1, "Unary"), map[uint32]codes.Code{1<<32 - 1: 0}},
		{"expired", callFrame(1, "Unary", withTimeout(-1)), map[uint32]codes.Code{1: codes.OK}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer, conn := guarded(t, NewGuard(GuardOptions{}), testservice.Service{})
				mustWrite(t, peer, test.sent)
				got := make(map[uint32]codes.Code)
				for range test.want {
					id, code := readResponse(t, peer)
					got[id] = code
				}
				for id, want := range test.want {
					if code, ok := got[id]; !ok || code != want {
						t.Errorf("stream %d: got %v, %v, want %v", id, code, ok, want)
					}
					// Data for a call that has ended is a race: neither answered nor refused.
					mustWrite(t, peer, dataFrame(id, 0, "late"))
				}
				synctest.Wait()
				if n, err := conn.Calls(), conn.Err(); n != 0 || err != nil {
					t.Errorf("%d calls are open, refused: %v", n, err)
				}
			})
		})
	}
}

func TestBackpressure(t *testing.T) {
	const calls = 10_000
	var running, most atomic.Int64
	full, release := make(chan struct{}), make(chan struct{})
	c, s := unixPair(t)
	conn := NewGuard(GuardOptions{}).Wrap(s, "")
	serve(t, conn, blocking(func(context.Context) error {
		if n := running.Add(1); n == DefaultMaxCalls {
			close(full)
		} else if n > most.Load() {
			most.Store(n) // after the limit was reached, which is what matters
		}
		<-release
		running.Add(-1)
		return nil
	}))
	client := ttrpc.NewClient(newClientConn(t, c, ClientOptions{}))
	defer func() { _ = client.Close() }()
	api := testv1.NewTestClient(client)
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := api.Unary(context.Background(), &testv1.UnaryRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	<-full
	if n := conn.Calls(); n != DefaultMaxCalls {
		t.Errorf("%d calls are open, want %d", n, DefaultMaxCalls)
	}
	close(release)
	wg.Wait()
	if n := most.Load(); n > DefaultMaxCalls {
		t.Errorf("%d handlers ran at once, want at most %d", n, DefaultMaxCalls)
	}
	if err := conn.Err(); err != nil {
		t.Error(err)
	}
}

// Requests that arrive together must not overshoot the limit, nor hold up those before them.
func TestLimitWithinOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := make(chan struct{})
		peer, conn := guarded(t, NewGuard(GuardOptions{MaxCalls: 1}), blocking(func(context.Context) error {
			<-step
			return nil
		}))
		last := callFrame(5, "Unary", withPayload(100))
		mustWrite(t, peer, frames(callFrame(1, "Unary"), callFrame(3, "Unary"), last))
		for id := uint32(1); id <= 5; id += 2 {
			synctest.Wait()
			if n := conn.Calls(); n != 1 {
				t.Fatalf("%d calls are open, want 1", n)
			}
			step <- struct{}{}
			if got, code := readResponse(t, peer); got != id || code != codes.OK {
				t.Fatalf("got %v for stream %d, want OK for %d", code, got, id)
			}
		}
	})
}

// Calls that are parked must not hold up the messages of those that run, nor lose messages of their own.
func TestParkedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard(GuardOptions{MaxCalls: 1})
		peer, conn := guarded(t, g, testservice.Service{})
		word := func(id uint32, s string) []byte {
			return dataFrame(id, 0, string(marshal(t, &testv1.JoinRequest{Word: s})))
		}
		long := strings.Repeat("x", 50_000)
		mustWrite(t, peer, frames(
			callFrame(1, "Join"), callFrame(3, "Join"), callFrame(5, "Unary", withPayload(50_000)),
			word(3, "a"), word(1, "b"), word(3, long), dataFrame(3, end, ""),
		))
		synctest.Wait()
		if n := conn.Calls(); n != 1 {
			t.Errorf("%d calls run, want 1", n)
		}
		mustWrite(t, peer, dataFrame(1, end, ""))
		for _, want := range []struct {
			id   uint32
			text string
		}{{1, "b"}, {3, "a " + long}, {5, ""}} {
			h, payload := readFrame(t, peer)
			var r ttrpc.Response
			var joined testv1.JoinResponse
			if err := errors.Join(proto.Unmarshal(payload, &r), proto.Unmarshal(r.Payload, &joined)); err != nil {
				t.Fatal(err)
			}
			if h.StreamID != want.id || want.text != "" && joined.GetText() != want.text {
				t.Errorf("stream %d got %d bytes, want stream %d", h.StreamID, len(joined.GetText()), want.id)
			}
		}
		if err := conn.Err(); err != nil {
			t.Error(err)
		}
		_ = peer.Close()
		synctest.Wait()
		wantAllGivenBack(t, g)
	})
}

// wantAllGivenBack fails the test unless the Guard counts nothing.
func wantAllGivenBack(t *testing.T, g *Guard) {
	t.Helper()
	if n := g.budget.used.Load(); n != 0 || len(g.budget.users) != 0 || len(g.receiving) != 0 {
		t.Errorf("%d bytes, %d users and %d connections still count", n, len(g.budget.users), len(g.receiving))
	}
}

// Calls must not be parked for ever because others never end.
func TestLimitFindsPeersThatHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, conn := guarded(t, NewGuard(GuardOptions{MaxCalls: 1}), blocking(untilEnd))
		mustWrite(t, peer, frames(callFrame(1, "Unary"), callFrame(3, "Unary"), callFrame(5, "Unary")))
		start := time.Now()
		for _, want := range []uint32{3, 5} {
			if id, code := readResponse(t, peer); id != want || code != codes.ResourceExhausted {
				t.Errorf("got %v for stream %d, want ResourceExhausted for %d", code, id, want)
			}
		}
		if waited := time.Since(start); waited < DefaultIOTimeout || waited > DefaultIOTimeout*5/4 {
			t.Errorf("answered after %v", waited)
		}
		if n := conn.Calls(); n != 1 {
			t.Errorf("%d calls are open, want 1", n)
		}
		mustWrite(t, peer, callFrame(7, "Unary"))
		_ = peer.Close()
		<-conn.Drain() // the handler, too, must end, or the bubble deadlocks
	})
}

func TestPeerThatNeverReads(t *testing.T) {
	many := func(frame func(id uint32) []byte) func(w io.Writer) int {
		return func(w io.Writer) int {
			sum := 0
			for id := uint32(1); ; id += 2 {
				n, err := w.Write(frame(id))
				if sum += n; err != nil {
					return sum
				}
			}
		}
	}
	echo := string(marshal(t, &testv1.EchoRequest{Message: strings.Repeat("x", 60<<10)}))
	for name, flood := range map[string]func(w io.Writer) int{
		"large answers":  many(func(id uint32) []byte { return callFrame(id, "Unary", withPayload(64<<10)) }),
		"small answers":  many(func(id uint32) []byte { return callFrame(id, "Unary", withPayload(1000)) }),
		"unimplemented":  many(func(id uint32) []byte { return callFrame(id, "Nothing") }),
		"echoing stream": many(func(id uint32) []byte { return frames(callFrame(id, "Echo"), dataFrame(id, 0, echo)) }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				peer, conn := guarded(t, NewGuard(GuardOptions{MaxMemory: 16 << 20}), testservice.Service{})
				start := time.Now()
				taken := flood(peer)
				if took := time.Since(start); took < DefaultIOTimeout || took > 2*DefaultIOTimeout {
					t.Errorf("cut off after %v", took)
				}
				if taken > 16<<20 {
					t.Errorf("%d bytes were taken from it", taken)
				}
				synctest.Wait()
				if err := conn.Err(); err == nil || !strings.Contains(err.Error(), "nothing taken") {
					t.Errorf("refused for %v, want that nothing was taken", err)
				}
			})
		})
	}
}

// A flood of requests that are refused must be bounded like any other.
func TestDrainingPeerThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, conn := guarded(t, NewGuard(GuardOptions{}), testservice.Service{})
		<-conn.Drain()
		for id := uint32(1); ; id += 2 {
			if _, err := peer.Write(callFrame(id, "Unary")); err != nil {
				if id > 100_000 {
					t.Errorf("cut off after stream %d only", id)
				}
				return
			}
		}
	})
}

func TestPeerThatNeverFinishes(t *testing.T) {
	long := callFrame(1, "Unary", withPayload(1000))
	for name, sent := range map[string][]byte{
		"header":         long[:3],
		"no payload":     long[:HeaderSize],
		"part":           long[:500],
		"second frame":   frames(callFrame(1, "Unary"), callFrame(3, "Unary")[:1]),
		"large":          callFrame(1, "Unary", withPayload(1<<20))[:HeaderSize+1],
		"parked":         frames(callFrame(1, "Join"), callFrame(3, "Join", withPayload(1000))[:20]),
		"late data part": frames(callFrame(3, "Unary"), dataFrame(1, 0, "late")[:12]),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGuard(GuardOptions{MaxCalls: 1})
				peer, conn := guarded(t, g, testservice.Service{})
				go func() { _, _ = io.Copy(io.Discard, peer) }()
				start := time.Now()
				mustWrite(t, peer, sent)
				<-conn.ctx.Done()
				if took := time.Since(start); took < DefaultIOTimeout || took > DefaultIOTimeout*5/4 {
					t.Errorf("cut off after %v", took)
				}
				synctest.Wait()
				if err := conn.Err(); err == nil || !strings.Contains(err.Error(), "not finished") {
					t.Errorf("refused: %v", err)
				}
				wantAllGivenBack(t, g)
			})
		})
	}
}

func TestSlowAndIdlePeersAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, conn := guarded(t, NewGuard(GuardOptions{}), testservice.Service{})
		frame := callFrame(1, "Unary", withPayload(18))
		for id := byte(1); id < 10; id += 2 {
			time.Sleep(time.Hour)
			frame[7] = id
			for i := range frame {
				time.Sleep(25 * time.Second / time.Duration(len(frame)))
				mustWrite(t, peer, frame[i:i+1])
			}
			if _, code := readResponse(t, peer); code != codes.OK {
				t.Fatal(code)
			}
		}
		time.Sleep(DefaultIOTimeout)
		synctest.Wait()
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if conn.out.armed || conn.out.queue != nil || conn.judge.calls != nil || conn.input.part != nil {
			t.Error("an idle connection keeps something")
		}
	})
}

// A frame waits for memory. A peer that holds it and brings nothing loses its connection meanwhile.
func TestMemoryOfStalledFrames(t *testing.T) {
	for name, test := range map[string]struct {
		drip time.Duration // between pieces of stallBytes; 0 means none
		code codes.Code    // of the call that waits
		wait time.Duration
	}{
		"nothing": {0, codes.OK, stallTime},
		"slow":    {stallTime / 2, codes.ResourceExhausted, memoryTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				large := callFrame(1, "Unary", withPayload(3<<20))
				g := NewGuard(GuardOptions{MaxMemory: 2*requestCopies*len(large) + 16*callCost})
				stalled, stalledConn := guarded(t, g, testservice.Service{})
				mustWrite(t, stalled, large[:100])
				synctest.Wait() // it has its memory
				go func() {
					for rest := large[100:]; test.drip > 0 && len(rest) > stallBytes; rest = rest[stallBytes:] {
						if _, err := stalled.Write(rest[:stallBytes]); err != nil {
							return
						}
						time.Sleep(test.drip)
					}
				}()
				waiting, waitingConn := guarded(t, g, testservice.Service{})
				gone, goneConn := guarded(t, g, testservice.Service{})
				start := time.Now()
				go func() { _, _ = gone.Write(large) }()
				synctest.Wait()
				_ = goneConn.Close() // before it got memory
				go func() { _, _ = waiting.Write(large) }()

				small, _ := guarded(t, g, testservice.Service{})
				mustWrite(t, small, callFrame(1, "Unary", withPayload(1000)))
				if _, code := readResponse(t, small); code != codes.OK || time.Since(start) > 0 {
					t.Errorf("a small call had to wait %v: %v", time.Since(start), code)
				}
				if _, code := readResponse(t, waiting); code != test.code {
					t.Errorf("a large call: got %v, want %v", code, test.code)
				}
				if waited := time.Since(start); waited < test.wait || waited > test.wait+stallTime/2 {
					t.Errorf("the large call waited %v, want %v", waited, test.wait)
				}
				if lost := stalledConn.Err() != nil; lost != (test.drip == 0) || waitingConn.Err() != nil {
					t.Errorf("refused: stalled %v, waiting %v", stalledConn.Err(), waitingConn.Err())
				}
				_, _, _ = stalled.Close(), waiting.Close(), small.Close()
				time.Sleep(test.drip)
				synctest.Wait()
				wantAllGivenBack(t, g)
			})
		})
	}
}

// One user must not be able to take the memory of all, on however many connections.
func TestMemoryOfUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const memory, conns, calls = 1 << 20, 4, 40
		g := NewGuard(GuardOptions{MaxMemory: memory})
		left := memory
		for _, user := range []string{"first", "second", "third"} {
			running := 0
			for range conns {
				peer, inner := net.Pipe()
				conn := g.Wrap(inner, user)
				serve(t, conn, blocking(untilEnd))
				go func() { _, _ = io.Copy(io.Discard, peer) }()
				for id := uint32(1); id < 2*calls; id += 2 {
					mustWrite(t, peer, callFrame(id, "Unary"))
				}
				time.Sleep(2 * calls * memoryTimeout)
				running += conn.Calls()
				t.Cleanup(func() { _ = peer.Close() })
			}
			took := int(g.budget.users[user].used.Load())
			if left -= took; running == 0 || took > left || took+2*callCost < left {
				t.Errorf("%s: %d calls run and hold %d bytes, %d are left", user, running, took, left)
			}
		}
	})
}

// invalid has requests that ttrpc must not see, and what their calls get.
var invalid = map[string]func() []byte{
	"many entries": func() []byte {
		return callFrame(1, "Echo", func(r *ttrpc.Request) {
			for range maxMetadata/entryCost + 1 {
				r.Metadata = append(r.Metadata, &ttrpc.KeyValue{})
			}
		})
	},
	"long value": func() []byte {
		return callFrame(1, "Echo", func(r *ttrpc.Request) {
			r.Metadata = []*ttrpc.KeyValue{{Key: "k", Value: strings.Repeat("v", maxMetadata)}, {Key: "after"}}
		})
	},
	"two million entries": func() []byte {
		entries := bytes.Repeat([]byte{0x2a, 0}, 2_000_000)
		payload := append(callFrame(1, "Echo")[HeaderSize:], entries...)
		return AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, payload)
	},
	"frame too long": func() []byte {
		h := Header{Length: 5 << 20, StreamID: 1, Type: TypeRequest, Flags: FlagRemoteOpen}
		return append(h.Append(nil), make([]byte, h.Length)...)
	},
	"message too long": func() []byte {
		h := Header{Length: 5 << 20, StreamID: 1, Type: TypeData}
		return frames(callFrame(1, "Echo"), h.Append(nil), make([]byte, h.Length))
	},
}

// Such a request ends its own call only, however its bytes arrive, and also if it is parked.
func TestInvalidRequests(t *testing.T) {
	for name, request := range invalid {
		sent := frames(request(), dataFrame(1, 0, "late"), dataFrame(1, end, ""))
		for _, piece := range []int{7, 4096, len(sent)} {
			for _, parked := range []bool{false, true} {
				t.Run(fmt.Sprint(name, "/", piece, "/", parked), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testInvalidRequest(t, sent, piece, parked) })
				})
			}
		}
	}
}

func testInvalidRequest(t *testing.T, sent []byte, piece int, parked bool) {
	g := NewGuard(GuardOptions{MaxCalls: 1})
	peer, conn := guarded(t, g, testservice.Service{})
	id := byte(1)
	if parked {
		mustWrite(t, peer, callFrame(1, "Join"))
		id = 3
	}
	sent = bytes.Clone(sent)
	for rest := sent; len(rest) > 0; { // another stream
		h, _ := ParseHeader(rest)
		rest[7] = id
		rest = rest[HeaderSize+int(h.Length):]
	}
	for chunk := range slices.Chunk(sent, piece) {
		mustWrite(t, peer, chunk)
	}
	if parked {
		mustWrite(t, peer, dataFrame(1, end, ""))
	}
	codeOf := map[uint32]codes.Code{}
	for range id/2 + 1 {
		got, code := readResponse(t, peer)
		codeOf[got] = code
	}
	if got := codeOf[uint32(id)]; got != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", got)
	}
	mustWrite(t, peer, callFrame(5, "Unary"))
	if got, code := readResponse(t, peer); got != 5 || code != codes.OK {
		t.Errorf("another call: got %v for stream %d", code, got)
	}
	if err := conn.Err(); err != nil {
		t.Error(err)
	}
	_ = peer.Close()
	synctest.Wait()
	wantAllGivenBack(t, g)
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		peer, conn := guarded(t, NewGuard(GuardOptions{}), blocking(func(context.Context) error {
			<-release
			return nil
		}))
		mustWrite(t, peer, frames(callFrame(1, "Unary"), callFrame(3, "Join")))
		synctest.Wait()
		drained := conn.Drain()
		if conn.Drain() != drained {
			t.Error("a second Drain has another channel")
		}
		mustWrite(t, peer, frames(callFrame(5, "Unary", withPayload(40_000)), callFrame(7, "Echo")))
		for _, want := range []uint32{5, 7} {
			if id, code := readResponse(t, peer); id != want || code != codes.Unavailable {
				t.Errorf("got %v for stream %d, want Unavailable for %d", code, id, want)
			}
		}
		close(release)
		if id, code := readResponse(t, peer); id != 1 || code != codes.OK {
			t.Errorf("got %v for stream %d, want OK for 1", code, id)
		}
		mustWrite(t, peer, dataFrame(3, end, ""))
		synctest.Wait() // the answer is not read yet
		select {
		case <-drained:
			t.Error("drained while an answer is on its way")
		default:
		}
		if id, code := readResponse(t, peer); id != 3 || code != codes.OK {
			t.Errorf("got %v for stream %d, want OK for 3", code, id)
		}
		<-drained
		if n := conn.Calls(); n != 0 {
			t.Errorf("%d calls are open", n)
		}
		mustWrite(t, peer, callFrame(9, "Unary"))
		if id, code := readResponse(t, peer); id != 9 || code != codes.Unavailable {
			t.Errorf("got %v for stream %d, want Unavailable for 9", code, id)
		}
	})
}

func TestDrainWaitsForOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, conn := guarded(t, NewGuard(GuardOptions{}), testservice.Service{})
		mustWrite(t, peer, callFrame(1, "Unary"))
		synctest.Wait() // the handler has answered, and nobody reads
		drained := conn.Drain()
		select {
		case <-drained:
			t.Error("drained while an answer is on its way")
		default:
		}
		if id, code := readResponse(t, peer); id != 1 || code != codes.OK {
			t.Errorf("got %v for stream %d, want OK for 1", code, id)
		}
		<-drained
	})
}

// A refusal must not get into the midst of a frame that ttrpc writes in two pieces.
func TestRefusalsKeepToFrameBoundaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, inner := net.Pipe()
		conn := NewGuard(GuardOptions{}).Wrap(inner, "")
		defer func() { _, _ = peer.Close(), conn.Close() }()
		long := AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, make([]byte, 10_000))
		if _, err := conn.Write(long[:ttrpcBuffer]); err != nil {
			t.Fatal(err)
		}
		conn.Drain()
		go func() { _, _ = conn.Read(make([]byte, ttrpcBuffer)) }()
		mustWrite(t, peer, callFrame(3, "Unary"))
		synctest.Wait() // the refusal is ready
		go func() { _, _ = conn.Write(long[ttrpcBuffer:]) }()
		refused := refusal(3, codes.Unavailable, "server is shutting down")
		lengths := map[uint32]int{1: 10_000, 3: len(refused) - HeaderSize}
		for range 2 {
			h, payload := readFrame(t, peer)
			if h.Type != TypeResponse || len(payload) != lengths[h.StreamID] {
				t.Fatalf("got %+v", h)
			}
			delete(lengths, h.StreamID)
		}
	})
}

func TestDrainEndsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer, conn := guarded(t, NewGuard(GuardOptions{MaxCalls: 1}), blocking(untilEnd))
		mustWrite(t, peer, frames(callFrame(1, "Unary"), callFrame(3, "Unary")))
		synctest.Wait()
		conn.Drain()
		if id, code := readResponse(t, peer); id != 3 || code != codes.Unavailable {
			t.Errorf("got %v for stream %d, want Unavailable for 3", code, id)
		}
	})
}

// ttrpc answers a stream that it cannot deliver to while the handler runs on. A peer must not get another handler for
// it.
func TestAnswerInPlaceOfHandler(t *testing.T) {
	for name, sent := range map[string][]byte{
		"full":    frames(callFrame(1, "Join"), bytes.Repeat(dataFrame(1, 0, ""), 70)),
		"expired": frames(callFrame(1, "Join", withTimeout(1)), bytes.Repeat(dataFrame(1, 0, ""), 70)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				peer, conn := guarded(t, NewGuard(GuardOptions{}), blocking(func(context.Context) error {
					<-release
					return errors.New("done")
				}))
				answers := make(chan codes.Code, 100)
				go func() {
					for {
						var b [HeaderSize]byte
						if _, err := io.ReadFull(peer, b[:]); err != nil {
							close(answers)
							return
						}
						h, _ := ParseHeader(b[:])
						payload := make([]byte, h.Length)
						_, _ = io.ReadFull(peer, payload)
						var r ttrpc.Response
						_ = proto.Unmarshal(payload, &r)
						answers <- codes.Code(r.GetStatus().GetCode())
					}
				}()
				mustWrite(t, peer, sent)
				if code := <-answers; code != codes.InvalidArgument {
					t.Fatalf("got %v in place of the handler's answer", code)
				}
				mustWrite(t, peer, dataFrame(1, 0, "late"))
				time.Sleep(time.Minute)
				if n := conn.Calls(); n != 1 {
					t.Errorf("%d calls are open while the handler runs", n)
				}
				close(release)
				<-conn.Drain()
				if n, err := conn.Calls(), conn.Err(); n != 0 || err != nil {
					t.Errorf("%d calls are open, refused: %v", n, err)
				}
			})
		})
	}
}

// FuzzJudge checks that what ttrpc gets to see does not depend on how the bytes arrive, and cannot crash it.
func FuzzJudge(f *testing.F) {
	f.Add(frames(callFrame(1, "Join"), dataFrame(1, 0, "x"), dataFrame(1, end, "")), byte(0))
	f.Add(frames(callFrame(1, "Unary"), dataFrame(1, 0, "x")), byte(7))
	f.Add(frames(callFrame(3, "Echo"), dataFrame(1, 0, "dropped"), dataFrame(3, 0, "kept")), byte(12))
	g := NewGuard(GuardOptions{MaxCalls: 1 << 30})
	seen := func(r io.Reader) ([]byte, error) {
		c := g.Wrap(reading{&replay{}, r}, "")
		defer c.account.unref() // all that it counts
		b, err := io.ReadAll(c)
		if err != nil {
			return nil, err
		}
		return b, c.Err()
	}
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		whole, wholeErr := seen(bytes.NewReader(b))
		pieces, piecesErr := seen(&stepReader{b, int(step) + 1})
		bytewise, bytewiseErr := seen(iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader(b))))
		if (wholeErr == nil) != (piecesErr == nil) || (wholeErr == nil) != (bytewiseErr == nil) {
			t.Fatalf("refused: %v whole, %v in pieces, %v byte by byte", wholeErr, piecesErr, bytewiseErr)
		}
		if wholeErr == nil && (!bytes.Equal(whole, pieces) || !bytes.Equal(whole, bytewise)) {
			t.Fatalf("seen: %x whole, %x in pieces, %x byte by byte", whole, pieces, bytewise)
		}
		streams := make(map[uint32]bool)
		methods := newMethods(nil)
		for rest := whole; ; {
			h, ok := ParseHeader(rest)
			if !ok || len(rest) < HeaderSize+int(h.Length) {
				break
			}
			payload := rest[HeaderSize:][:h.Length]
			rest = rest[HeaderSize+int(h.Length):]
			switch h.Type {
			case TypeRequest:
				var r ttrpc.Request
				if err := proto.Unmarshal(payload, &r); err != nil {
					continue // the last frame before a refusal
				}
				streams[h.StreamID] = methods[r.Service+"/"+r.Method] == clientStream
			case TypeData:
				if !streams[h.StreamID] {
					t.Fatalf("ttrpc got data for stream %d, which takes none", h.StreamID)
				}
			}
		}
	})
}

// stepReader reads n bytes at a time.
type stepReader struct {
	b []byte
	n int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[:min(r.n, len(r.b))])
	r.b = r.b[n:]
	return n, nil
}
