package wire

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// blocking is the tests' service with handlers that f holds up.
func blocking(f func(context.Context) error) testservice.Service {
	return testservice.Service{Begin: func(ctx context.Context, _ string) error { return f(ctx) }}
}

// untilEnd blocks handlers until their connection or their deadline ends.
func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// newClientConn returns a ClientConn over one connection, which is the only one that it gets.
func newClientConn(t testing.TB, conn net.Conn, o ClientOptions) *ClientConn {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	var once sync.Once
	c, err := NewClientConn(t.Context(), func(context.Context) (net.Conn, error) {
		err := syscall.ECONNREFUSED
		once.Do(func() { err = 0 })
		if err != 0 {
			return nil, err
		}
		return conn, nil
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	net.Conn
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	var c net.Conn
	l.once.Do(func() { c = l.Conn })
	if c == nil {
		return nil, io.EOF
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.LocalAddr() }

// serve runs a stock server on c until the connection ends.
func serve(t testing.TB, c net.Conn, service testservice.Service) {
	t.Helper()
	s, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	testv1.RegisterTestService(s, service)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = c.Close() })
	if err := s.Serve(ctx, &oneConn{Conn: c}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// unixPair returns two ends of a unix socket.
func unixPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wire") // t.TempDir can be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	client, err = net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	if server == nil {
		t.Fatal("accept: no connection")
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// tlsPair returns two ends of a TLS connection over a unix socket.
func tlsPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"server"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	c, s := unixPair(t)
	return tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "server"}),
		tls.Server(s, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}}})
}

func TestStockPeers(t *testing.T) {
	transports := map[string]func(testing.TB) (net.Conn, net.Conn){
		"unix": unixPair,
		"tls":  tlsPair,
		"pipe": func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	}
	for name, pair := range transports {
		for _, sides := range []string{"neither", "client", "server", "both"} {
			t.Run(name+"/"+sides, func(t *testing.T) {
				c, s := pair(t)
				if sides == "client" || sides == "both" {
					c = newClientConn(t, c, ClientOptions{})
				}
				if sides == "server" || sides == "both" {
					s = NewGuard(GuardOptions{}).Wrap(s, "")
				}
				serve(t, s, testservice.Service{})
				client := ttrpc.NewClient(c)
				defer func() { _ = client.Close() }()
				everyKind(t, testv1.NewTestClient(client))
				if g, ok := s.(*GuardedConn); ok {
					if err := g.Err(); err != nil {
						t.Errorf("peer was refused: %v", err)
					}
					<-g.Drain()
					if n := g.Calls(); n != 0 {
						t.Errorf("%d calls are still open", n)
					}
				}
			})
		}
	}
}

// everyKind makes calls of all kinds and sizes.
func everyKind(t *testing.T, client testv1.TestClient) {
	t.Helper()
	ctx := context.Background()
	for _, size := range []int{0, 1, 1000, 4080, 4096, 5000, 32 << 10, 40 << 10, 1 << 20, MaxPayload - 100} {
		want := strings.Repeat("x", size)
		got, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: want})
		if err != nil || got.Foo != want {
			t.Fatalf("Unary with %d bytes: got %d, %v", size, len(got.GetFoo()), err)
		}
	}

	split, err := client.Split(ctx, &testv1.SplitRequest{Text: "a b c"})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for {
		r, err := split.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, r.Word)
	}
	if got := strings.Join(words, ","); got != "a,b,c" {
		t.Fatalf("Split: got %q", got)
	}

	join, err := client.Join(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if err := join.Send(&testv1.JoinRequest{Word: w}); err != nil {
			t.Fatal(err)
		}
	}
	joined, err := join.CloseAndRecv()
	if err != nil || joined.Text != "a b c" {
		t.Fatalf("Join: got %q, %v", joined.GetText(), err)
	}

	var callers sync.WaitGroup
	for i := range 128 {
		callers.Go(func() {
			for j := range 5 {
				want := fmt.Sprint(i, j, strings.Repeat("y", i*j*20))
				got, err := client.Unary(ctx, &testv1.UnaryRequest{Bar: want})
				if err != nil || got.Bar != want {
					t.Errorf("Unary: got %q, %v", got.GetBar(), err)
				}
			}
			if i%8 != 0 {
				return
			}
			echo, err := client.Echo(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 20 {
				want := strings.Repeat("z", i*j*10)
				if err := echo.Send(&testv1.EchoRequest{Message: want}); err != nil {
					t.Error(err)
				}
				if got, err := echo.Recv(); err != nil || got.Message != want {
					t.Errorf("Echo: got %d bytes, want %d: %v", len(got.GetMessage()), len(want), err)
				}
			}
			if err := echo.CloseSend(); err != nil {
				t.Error(err)
			}
			if _, err := echo.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("Echo after its end: %v", err)
			}
		})
	}
	callers.Wait()
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A call that a stopping server has not read was not run, if the server has refused one before. Of one that it had
// begun, that is not known.
func TestStoppingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var frozen atomic.Bool
		var writes atomic.Int32
		client := newClientConn(t, freezable{near, &frozen, &writes}, ClientOptions{})
		server := NewGuard(GuardOptions{}).Wrap(far, "")
		serve(t, server, blocking(untilEnd))
		_, _ = client.Write(callFrame(1, "Unary"))
		synctest.Wait()
		server.Drain()
		_, _ = client.Write(callFrame(3, "Unary"))
		wantAnswer(t, client, 3, "shutting down")
		frozen.Store(true)
		_, _ = client.Write(callFrame(5, "Unary"))
		synctest.Wait()
		_ = server.Close()
		want := map[uint32]string{1: mayHaveRun, 5: "shutting down"}
		for range 2 {
			h, payload := readFrame(t, client)
			if text, ok := want[h.StreamID]; !ok || !bytes.Contains(payload, []byte(text)) {
				t.Errorf("got %+v %q", h, payload)
			}
			delete(want, h.StreamID)
		}
	})
}
