package ttrpcx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"example.com/ttrpc-starter/ttrpcx"
)

// vsockPair returns two ends of a connection. The first is one of vsock's connections from the machine cid, though not
// over vsock, because few test machines have it.
func vsockPair(t *testing.T, cid uint32) (conn, peer net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, peer = ttrpcx.NewVsockConn(fds[0], cid), ttrpcx.NewVsockConn(fds[1], 9)
	t.Cleanup(func() {
		_ = conn.Close()
		_ = peer.Close()
	})
	return conn, peer
}

// TestVsockConn checks that a connection behaves as those of package net.
func TestVsockConn(t *testing.T) {
	buf := make([]byte, 16)
	t.Run("addresses", func(t *testing.T) {
		conn, _ := vsockPair(t, 7)
		if a := conn.RemoteAddr(); a.Network() != "vsock" || a.String() != "7:5000" {
			t.Errorf("the remote address is %s %s", a.Network(), a)
		}
		if a := conn.LocalAddr(); a.String() != "3:1024" {
			t.Errorf("the local address is %s", a)
		}
	})
	t.Run("end", func(t *testing.T) {
		conn, peer := vsockPair(t, 7)
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(peer); string(got) != "hello" || err != nil {
			t.Errorf("the peer read %q, %v", got, err)
		}
		_, err := peer.Write(buf)
		var op *net.OpError
		if !errors.Is(err, unix.EPIPE) || !errors.As(err, &op) {
			t.Errorf("a write after the end returns %v, want EPIPE in a net.OpError", err)
		}
	})
	t.Run("deadlines", func(t *testing.T) {
		conn, _ := vsockPair(t, 7)
		for name, set := range map[string]func(time.Time) error{
			"read": conn.SetReadDeadline, "write": conn.SetWriteDeadline, "both": conn.SetDeadline,
		} {
			if err := set(time.Now().Add(10 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			var err error
			if name == "write" {
				for err == nil {
					_, err = conn.Write(make([]byte, 1<<16))
				}
			} else {
				_, err = conn.Read(buf)
			}
			var timeout net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%s: the error is %v, want a timeout", name, err)
			}
		}
	})
	t.Run("close", func(t *testing.T) {
		conn, _ := vsockPair(t, 7)
		read := make(chan error)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		_, writeErr := conn.Write(buf)
		for _, err := range []error{<-read, writeErr, conn.Close()} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close, the error is %v, want net.ErrClosed", err)
			}
		}
	})
}

// connListener accepts the connections that are sent to it.
type connListener struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
}

func (l *connListener) Addr() net.Addr { conn := ttrpcx.NewVsockConn(-1, 0); return conn.LocalAddr() }

func (l *connListener) Close() error { l.close(); return nil }

// TestVsockPeers checks which machines may connect.
func TestVsockPeers(t *testing.T) {
	for name, c := range map[string]struct {
		allow    ttrpcx.Allow
		cid      uint32
		admitted bool
	}{
		"the host":          {ttrpcx.Allow{}, 2, true},
		"this machine":      {ttrpcx.Allow{}, 1, false},
		"another machine":   {ttrpcx.Allow{CIDs: []uint32{4}}, 7, false},
		"one that is added": {ttrpcx.Allow{CIDs: []uint32{4, 7}}, 7, true},
		"added as a user":   {ttrpcx.Allow{UIDs: []uint32{7}, GIDs: []uint32{7}}, 7, false},
		"unknown":           {ttrpcx.Allow{}, 1<<32 - 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			peers := make(chan ttrpcx.Peer, 1)
			l := &connListener{conns: make(chan net.Conn)}
			l.closed, l.close = context.WithCancel(t.Context())
			s := &served{t: t, log: new(journal)}
			s.run(ttrpcx.NewListener(l, ttrpcx.ServerOptions{Allow: c.allow, Logger: s.log.logger()}),
				unary(func(ctx context.Context) error {
					peer, _ := ttrpcx.PeerFromContext(ctx)
					peers <- peer
					return nil
				}))
			if s.address != "vsock://3:1024" {
				t.Errorf("the server's address is %s", s.address)
			}
			conn, peer := vsockPair(t, c.cid)
			l.conns <- conn
			if !c.admitted {
				wantHangUp(t, peer)
				s.log.wantOnly(t, "connection refused", "peer.cid=", "not allowed")
				return
			}
			client := ttrpc.NewClient(peer)
			defer client.Close()
			if err := call(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			got := <-peers
			if got.CID != c.cid || !strings.Contains(got.LogValue().String(), "cid=") {
				t.Errorf("the peer is %+v, want CID %d", got, c.cid)
			}
		})
	}
}

// TestVsockListener needs vsock in the kernel, and no other machine.
func TestVsockListener(t *testing.T) {
	noLeaks(t)
	l, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: "vsock://any:0"})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPERM) { // seccomp of containers
		t.Skipf("missing: vsock in the kernel: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if got := l.String(); !strings.HasPrefix(got, "vsock://any:") || strings.HasSuffix(got, ":0") {
		t.Errorf("the listener is called %s", got)
	}
	_, err = ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: l.String()})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener's error is %v, want EADDRINUSE", err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ttrpcx.Serve(ctx, server, l) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Serve returns %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not return")
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close returns %v, want net.ErrClosed", err)
	}
}

// TestVsock calls over the kernel's loopback, if it has one.
func TestVsock(t *testing.T) {
	l, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{
		Address: "vsock://any:0", Allow: ttrpcx.Allow{CIDs: []uint32{1}},
	})
	if err != nil {
		t.Skipf("missing: vsock in the kernel: %v", err)
	}
	s := &served{t: t, log: new(journal)}
	s.run(l)
	o := s.options()
	o.Address = strings.Replace(s.address, "any", "1", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	conn, err := ttrpcx.DialOnce(ctx, o)
	if err != nil {
		if took := time.Since(start); took > patience/2 {
			t.Errorf("Dial took %v, and its context had 500 ms", took)
		}
		t.Skipf("missing: vsock's loopback, which module vsock_loopback has: %v", err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	if err := callAll(t.Context(), client); err != nil {
		t.Error(err)
	}
	_ = client.Close()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}
