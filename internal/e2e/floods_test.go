//go:build linux

package e2e

import (
	"context"
	"io"
	"math"
	"net"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// attack is what a peer does until ctx ends. run returns an error only if the server breaks the rules.
type attack struct {
	name string
	run  func(ctx context.Context, p *peer) error
}

var attacks = []attack{
	{"break rules", breakRules},
	{"announce and not send", flood((*peer).announce)},
	{"send a byte at a time", flood((*peer).trickle)},
	{"send frames over 4 MiB", flood((*peer).oversize)},
	{"send a million entries", flood((*peer).entries)},
	{"ask and never read", flood((*peer).neverRead)},
	{"ask and read slowly", flood((*peer).readSlowly)},
	{"open streams", flood((*peer).openStreams)},
	{"collect in Join", flood((*peer).collect)},
	{"call and hang up", flood((*peer).hangUp)},
	{"cancel calls", flood((*peer).cancelCalls)},
	{"be idle", hoard(func(p *peer) (net.Conn, error) { return p.dial() })},
	{"knock and be silent", hoard(func(p *peer) (net.Conn, error) { return p.knock() })},
	{"knock and babble", hoard((*peer).babble)},
}

func (p *peer) upTo(d time.Duration) time.Duration { return time.Duration(p.rng.Int64N(int64(d))) }

// flood plays a move on one connection after another.
func flood(move func(*peer, net.Conn)) func(context.Context, *peer) error {
	return func(ctx context.Context, p *peer) error {
		for ctx.Err() == nil {
			if conn, err := p.dial(); err == nil {
				p.connections.Add(1)
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				move(p, conn)
				stop()
				_ = conn.Close()
			}
			rest(ctx, p.upTo(20*time.Millisecond))
		}
		return nil
	}
}

// hoard opens one connection after another and leaves them open.
func hoard(connect func(*peer) (net.Conn, error)) func(context.Context, *peer) error {
	const most = 500 // the test's own descriptors are limited
	return func(ctx context.Context, p *peer) error {
		var open []net.Conn
		for ctx.Err() == nil {
			if conn, err := connect(p); err == nil {
				p.connections.Add(1)
				open = append(open, conn)
			}
			if len(open) == most {
				_ = open[0].Close()
				open = open[1:]
			}
			rest(ctx, p.upTo(4*time.Millisecond))
		}
		for _, conn := range open {
			_ = conn.Close()
		}
		return nil
	}
}

// send sends a frame and reports whether it could.
func (p *peer) send(conn net.Conn, f frame) bool {
	f.Length = uint32(len(f.payload))
	p.sent.Add(1)
	_, err := conn.Write(f.Append(nil))
	if err == nil {
		_, err = conn.Write(f.payload)
	}
	return err == nil
}

// hold keeps the connection for up to two seconds, unless the server closes it.
func (p *peer) hold(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(p.upTo(2 * time.Second)))
	_, _ = io.Copy(io.Discard, conn)
}

// bulk is the text of a large message.
var bulk = strings.Repeat("x", wire.MaxPayload-100)

// largeRequest returns the first request of a connection. Its answer has the same size.
func (p *peer) largeRequest() frame {
	f := request("Unary", 0, &testv1.UnaryRequest{Bar: bulk[:oneOf(p.rng, 30<<10, 64<<10, 1<<20, len(bulk))]})
	f.StreamID = 1
	return f
}

func (p *peer) announce(conn net.Conn) {
	f := p.largeRequest()
	f.Length = uint32(len(f.payload))
	if _, err := conn.Write(f.Append(nil)); err != nil {
		return
	}
	if _, err := conn.Write(f.payload[:oneOf(p.rng, 0, 1, len(f.payload)/2, len(f.payload)-1)]); err == nil {
		p.hold(conn)
	}
}

func (p *peer) trickle(conn net.Conn) {
	f := p.largeRequest()
	for _, b := range wire.AppendFrame(nil, f.Header, f.payload[:1000]) {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(p.upTo(10 * time.Millisecond))
	}
}

func (p *peer) oversize(conn net.Conn) {
	f := p.largeRequest()
	for f.payload = append(f.payload, bulk...); p.send(conn, f) && f.StreamID < 20; f.StreamID += 2 {
	}
	p.hold(conn)
}

// entries sends metadata that takes a hundred times as much memory as it has bytes.
func (p *peer) entries(conn net.Conn) {
	f := request("Unary", 0, nil)
	entry := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), nil)
	f.payload = append(f.payload, strings.Repeat(string(entry), oneOf(p.rng, 100, 10_000, 2_000_000))...)
	for f.StreamID = 1; p.send(conn, f) && f.StreamID < 20; f.StreamID += 2 {
	}
	p.hold(conn)
}

func (p *peer) neverRead(conn net.Conn) {
	for f := p.largeRequest(); p.send(conn, f); f.StreamID += 2 {
	}
}

func (p *peer) readSlowly(conn net.Conn) {
	f := p.largeRequest()
	go func() {
		for p.send(conn, f) {
			f.StreamID += 2
		}
	}()
	b := make([]byte, 64<<10)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

// openStreams opens as many streams as it may, half of them with a deadline in 292 years.
func (p *peer) openStreams(conn net.Conn) {
	for id := uint32(1); id < 1000; id += 2 {
		f := frame{header(id, wire.TypeRequest, wire.FlagRemoteOpen), marshal(&ttrpc.Request{
			Service: testServiceName, Method: oneOf(p.rng, "Echo", "Join"),
			TimeoutNano: oneOf(p.rng, 0, int64(math.MaxInt64)),
		})}
		if !p.send(conn, f) {
			return
		}
	}
	p.hold(conn)
}

// collect sends messages to a handler that keeps all.
func (p *peer) collect(conn net.Conn) {
	f := request("Join", wire.FlagRemoteOpen, nil)
	f.StreamID = 1
	if !p.send(conn, f) {
		return
	}
	f = message(&testv1.JoinRequest{Word: bulk[:oneOf(p.rng, 0, 100, 1<<20)]})
	f.StreamID = 1
	for end := time.Now().Add(p.upTo(4 * time.Second)); p.send(conn, f) && time.Now().Before(end); {
	}
}

// slow is what the server answers late, also if the call has ended.
const slow = "slow"

// hangUp makes calls whose handlers run on when the connection has ended.
func (p *peer) hangUp(conn net.Conn) {
	f := request("Unary", 0, &testv1.UnaryRequest{Foo: slow, Bar: bulk[:oneOf(p.rng, 0, 0, 0, 10<<10)]})
	for f.StreamID = 1; f.StreamID < 400 && p.send(conn, f); f.StreamID += 2 {
	}
}

// cancelCalls makes calls with ttrpc's client whose callers give up.
func (p *peer) cancelCalls(conn net.Conn) {
	client := ttrpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), p.upTo(time.Millisecond))
		_, _ = testv1.NewTestClient(client).Unary(ctx, &testv1.UnaryRequest{Bar: bulk[:10<<10]})
		cancel()
	}
}

// babble returns a connection on which it has sent what the server cannot use.
func (p *peer) babble() (net.Conn, error) {
	conn, err := p.knock()
	if err == nil {
		const hello = "\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03" // of a TLS record of 16 KiB
		words := oneOf(p.rng, hello, hello+bulk[:16000], string(p.bytes(500)))
		go func() { _, _ = io.WriteString(conn, words) }()
	}
	return conn, err
}
