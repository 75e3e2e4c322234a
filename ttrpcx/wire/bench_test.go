package wire

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
)

// BenchmarkGuard reports what judging one small call and taking note of its answer costs.
func BenchmarkGuard(b *testing.B) {
	in := &replay{}
	c := NewGuard(GuardOptions{}).Wrap(in, "")
	payload := requestPayload(b, "test.v1.Test", "Unary", []byte("0123456789"))
	answer := AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, []byte("\x12\x0a0123456789"))
	p := make([]byte, 4096)
	b.ReportAllocs()
	id := uint32(1)
	for b.Loop() {
		in.frame = AppendFrame(in.frame[:0], Header{StreamID: id, Type: TypeRequest}, payload)
		if _, err := c.Read(p); err != nil {
			b.Fatal(err)
		}
		answer[4], answer[5], answer[6], answer[7] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		if _, err := c.Write(answer); err != nil {
			b.Fatal(err)
		}
		if id += 2; id > 1<<31 {
			b.Fatal("stream ids are used up")
		}
	}
	if n := c.Calls(); n != 0 {
		b.Fatalf("%d calls are open", n)
	}
}

// replay is a connection that reads one frame again and again and swallows what is written.
type replay struct {
	net.Conn
	frame []byte
}

func (r *replay) Read(p []byte) (int, error)  { return copy(p, r.frame), nil }
func (r *replay) Write(p []byte) (int, error) { return len(p), nil }
func (r *replay) Close() error                { return nil }
func (r *replay) LocalAddr() net.Addr         { return new(net.UnixAddr) }
func (r *replay) RemoteAddr() net.Addr        { return new(net.UnixAddr) }

func requestPayload(t testing.TB, service, method string, payload []byte) []byte {
	t.Helper()
	r := &ttrpc.Request{Service: service, Method: method, Payload: payload}
	return marshal(t, r)
}

// BenchmarkIdle reports the heap and the goroutines that an idle connection keeps, of each kind, once it has been used.
func BenchmarkIdle(b *testing.B) {
	const conns = 2000
	for b.Loop() {
		g := NewGuard(GuardOptions{IOTimeout: 40 * time.Millisecond})
		payload := requestPayload(b, "test.v1.Test", "Unary", nil)
		p := make([]byte, 4096)
		used := func(wrap func(net.Conn) net.Conn) (bytes float64, goroutines int) {
			ins := make([]replay, conns)
			wrapped := make([]net.Conn, conns)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			goroutines = runtime.NumGoroutine()
			for i := range wrapped {
				ins[i].frame = AppendFrame(p[:0:0], Header{StreamID: 1, Type: TypeRequest}, payload)
				wrapped[i] = wrap(&ins[i])
				if _, err := wrapped[i].Read(p); err != nil {
					b.Fatal(err)
				}
				answer := AppendFrame(p[:0], Header{StreamID: 1, Type: TypeResponse}, nil)
				if _, err := wrapped[i].Write(answer); err != nil {
					b.Fatal(err)
				}
				ins[i].frame = nil
			}
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&after)
			goroutines = runtime.NumGoroutine() - goroutines
			runtime.KeepAlive(wrapped)
			return float64(after.HeapAlloc-before.HeapAlloc) / conns, goroutines
		}
		server, n := used(func(c net.Conn) net.Conn { return g.Wrap(c, "") })
		client, m := used(func(c net.Conn) net.Conn { return newClientConn(b, c, ClientOptions{}) })
		b.ReportMetric(server, "B/guarded")
		b.ReportMetric(client, "B/client")
		b.ReportMetric(float64(n+m), "goroutines")
	}
}
