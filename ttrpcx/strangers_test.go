package ttrpcx_test

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx"
)

// TestStrangers floods a server with connections that start no handshake. As soon as the server drops one, there is a
// new one. A peer with a certificate must get through meanwhile, from another address and from the same.
func TestStrangers(t *testing.T) {
	a := newAuthority(t)
	files := a.issue("client")
	for name, from := range map[string][]byte{"the same address": {1}, "other addresses": {2, 3, 4, 5}} {
		if len(from) > 1 && runtime.GOOS != "linux" {
			continue // there is only one address
		}
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := serve(t, ttrpcx.ServerOptions{ // which has room for 16 handshakes
				Address: "tcp://127.0.0.1:0", TLS: a.issue("server"), MaxConnections: 64, IOTimeout: time.Hour,
			})
			stop, stopped := flood(t, s.address, from)
			eventually(t, "drop", func() bool { return len(s.log.lines("dropped for a newer connection")) > 0 })
			for range 5 {
				start := time.Now()
				eventually(t, "answer", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					conn, err := ttrpcx.DialOnce(ctx, s.client(files))
					if err != nil {
						return false
					}
					client := ttrpc.NewClient(conn)
					defer client.Close()
					return call(ctx, client) == nil
				})
				t.Logf("an answer after %v", time.Since(start))
			}
			stop()
			stopped.Wait()
			_ = s.stop()
		})
	}
}

// flood keeps more connections open than the server has room for, until stop is called.
func flood(t *testing.T, address string, from []byte) (stop func(), stopped *sync.WaitGroup) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	stopped = new(sync.WaitGroup)
	for i := range 80 {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from[i%len(from)])}}
		stopped.Go(func() {
			for ctx.Err() == nil {
				conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(address, "tcp://"))
				if err != nil {
					continue
				}
				unblock := context.AfterFunc(ctx, func() { _ = conn.Close() })
				_, _ = conn.Read(make([]byte, 1))
				unblock()
				_ = conn.Close()
			}
		})
	}
	return stop, stopped
}

// TestEndlessHandshake sends the start of a message that crypto/tls would collect.
func TestEndlessHandshake(t *testing.T) {
	noLeaks(t)
	s := serveTLS(t, newAuthority(t).issue("server"))
	conn := rawDial(t, s.address)
	const recordHeader, record = "\x16\x03\x01\x20\x00", 8 << 10
	b := []byte(recordHeader + "\x01\x00\xff\xff" + strings.Repeat("x", record-4))
	for range 3 {
		b = append(b, recordHeader+strings.Repeat("x", record)...)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	s.log.wantOnly(t, "connection refused", "more than 16384 bytes")
	_ = s.stop()
}
