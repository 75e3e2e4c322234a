package ttrpcx_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/ttrpcx"
)

// hypervisor listens at a unix socket as Firecracker does. It reads the line CONNECT and lets answer do the rest.
func hypervisor(t *testing.T, answer func(conn net.Conn)) (path string) {
	t.Helper()
	path = socketPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); line != "CONNECT 52\n" {
			t.Errorf("the client sent %q, %v", line, err)
		}
		answer(conn)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return path
}

// untilClosed waits until the client has closed the connection.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestHvsock(t *testing.T) {
	s := serve(t, ttrpcx.ServerOptions{})
	path := hypervisor(t, func(conn net.Conn) {
		guest := rawDial(t, s.address)
		_, _ = io.WriteString(conn, "OK 1073741824\n")
		go func() {
			_, _ = io.Copy(guest, conn)
			_ = guest.Close()
		}()
		_, _ = io.Copy(conn, guest)
	})
	o := s.options()
	o.Address = "hvsock://" + path + ":52"
	client := mustDial(t, o)
	if err := callAll(t.Context(), client); err != nil {
		t.Error(err)
	}
	_ = client.Close()
}

// TestHvsockKeepsBytes lets the guest's first bytes arrive together with the hypervisor's answer.
func TestHvsockKeepsBytes(t *testing.T) {
	path := hypervisor(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "OK 1\nOK 2\nrest") })
	conn, err := ttrpcx.DialOnce(t.Context(), ttrpcx.ClientOptions{Address: "hvsock://" + path + ":52"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "OK 2\nrest" || err != nil {
		t.Errorf("read %q, %v after the answer", got, err)
	}
}

func TestHvsockRefuses(t *testing.T) {
	const short = 300 * time.Millisecond
	for name, c := range map[string]struct {
		timeout time.Duration
		answer  func(conn net.Conn)
		want    string
	}{
		"closed": {patience, func(net.Conn) {}, "does the virtual machine listen at port 52?"},
		"half":   {patience, func(conn net.Conn) { _, _ = io.WriteString(conn, "OK 1") }, "listen at port 52?"},
		"no": {patience, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "NO\n")
			untilClosed(conn)
		}, `answered "NO\n"`},
		"endless": {patience, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "OK "+strings.Repeat("1", 1<<16))
		}, `answered "OK 1`},
		"silent":   {short, untilClosed, "did not answer CONNECT"},
		"dripping": {short, drip, "did not answer CONNECT"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			address := "hvsock://" + hypervisor(t, c.answer) + ":52"
			ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
			defer cancel()
			_, err := ttrpcx.DialOnce(ctx, ttrpcx.ClientOptions{Address: address})
			wantError(t, err, "connect to "+address, c.want)
		})
	}
}

// drip writes a byte of an answer now and then, as long as the client takes it.
func drip(conn net.Conn) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, b := range []byte("OK " + strings.Repeat("1", 28)) {
		<-tick.C
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
	}
}
