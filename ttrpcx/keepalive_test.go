package ttrpcx_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/ttrpcx"
)

// freezer forwards connections until it is frozen. Then what is sent to either end gets lost, and nothing is closed.
type freezer struct {
	net.Listener
	server string
	frozen atomic.Bool
}

func (f *freezer) run() {
	for {
		client, err := f.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", f.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		go f.forward(client, server)
		go f.forward(server, client)
	}
}

func (f *freezer) forward(to, from net.Conn) {
	defer to.Close()
	_, _ = io.Copy(writerFunc(func(p []byte) (int, error) {
		if f.frozen.Load() {
			return len(p), nil
		}
		return to.Write(p)
	}), from)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestKeepAlive makes a call to a server that has gone without closing its connection.
func TestKeepAlive(t *testing.T) {
	s := serve(t, ttrpcx.ServerOptions{})
	_, path, _ := strings.Cut(s.address, "://")
	l, err := net.Listen("unix", path+".proxy")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{Listener: l, server: path}
	defer f.Close()
	go f.run()
	client, err := ttrpcx.NewClient(t.Context(), ttrpcx.ClientOptions{
		Address: "unix://" + l.Addr().String(), KeepAlive: time.Second / 2, Logger: new(journal).logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	f.frozen.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = call(ctx, client.TTRPC)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nothing came") {
		t.Errorf("a call to a dead server: %v", err)
	}
	f.frozen.Store(false)
	eventually(t, "answer from a server that is back", func() bool { return call(ctx, client.TTRPC) == nil })
}
