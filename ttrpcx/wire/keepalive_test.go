package wire

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// freezable is a connection whose peer can die without closing it.
type freezable struct {
	net.Conn
	frozen *atomic.Bool
	writes *atomic.Int32
}

func (c freezable) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.frozen.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// guardedPipes is a listener whose connections a Guard protects.
type guardedPipes struct{ *pipes }

func (l guardedPipes) Accept() (net.Conn, error) {
	c, err := l.pipes.Accept()
	if err == nil {
		c = NewGuard(GuardOptions{}).Wrap(c, "")
	}
	return c, err
}

// A server that answers late is asked and found alive, and one that has gone is found dead. The next call goes to the
// next connection. An idle connection is silent.
func TestKeepAlive(t *testing.T) {
	const interval = time.Second
	servers := map[string]func(*pipes) net.Listener{
		"stock":   func(p *pipes) net.Listener { return p },
		"guarded": func(p *pipes) net.Listener { return guardedPipes{p} },
	}
	for name, listener := range servers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc, p := &tally{hold: make(chan struct{})}, newPipes()
				server := serveOn(t, listener(p), svc)
				defer server.kill()
				var frozen atomic.Bool
				var writes atomic.Int32
				r, _, stub := newClient(t, func(ctx context.Context) (net.Conn, error) {
					c, err := p.dial(ctx)
					frozen.Store(false)
					return freezable{c, &frozen, &writes}, err
				}, ClientOptions{KeepAlive: interval, BackoffMax: 1})
				stream, err := stub.Echo(t.Context())
				if err != nil {
					t.Fatal(err)
				}

				time.Sleep(100*interval + interval/2)
				if n := writes.Load(); n < 100*ticksPerTimeout/(ticksPerTimeout+1) || n > 102 {
					t.Errorf("%d writes in 100 silent intervals", n)
				}
				close(svc.hold)
				if err := callers["unary"](t.Context(), stub, "x"); err != nil {
					t.Error(err)
				}

				synctest.Wait()
				r.mu.Lock()
				if r.alive.asked != 0 {
					t.Errorf("%d requests were not answered", r.alive.asked)
				}
				r.mu.Unlock()

				frozen.Store(true)
				start := time.Now()
				_, err = stream.Recv()
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing came for 2s") {
					t.Errorf("a call to a dead server: %v", err)
				}
				if took := time.Since(start); took < 2*interval || took > 3*interval {
					t.Errorf("found out after %v, want 2 intervals", took)
				}
				if err := callers["unary"](t.Context(), stub, "y"); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				n := writes.Load()
				time.Sleep(time.Hour)
				r.mu.Lock()
				defer r.mu.Unlock()
				if writes.Load() != n || r.alive.armed {
					t.Error("an idle connection is not silent")
				}
			})
		})
	}
}

// An answer that takes longer than the interval is a sign of life, and so is a request that is taken slowly.
func TestKeepAliveWhileBytesFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, next := newRaw(t, ClientOptions{KeepAlive: 10 * time.Second}, nil)
		p := next()
		go write(t, r, 1, TypeRequest, 0, make([]byte, MaxPayload))
		slowly(t, p.conn, HeaderSize+MaxPayload)
		answer := AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, make([]byte, MaxPayload))
		go func() {
			for rest := answer; len(rest) > 0; rest = rest[min(len(rest), 100_000):] {
				time.Sleep(5 * time.Second)
				_, _ = p.conn.Write(rest[:min(len(rest), 100_000)])
			}
		}()
		if h, payload := readFrame(t, r); h.StreamID != 1 || len(payload) != MaxPayload {
			t.Errorf("got %+v", h)
		}
	})
}
