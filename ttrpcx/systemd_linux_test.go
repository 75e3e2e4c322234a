package ttrpcx_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// serveRole is the environment variable with which this test's binary, started again, is a server that listens there.
const serveRole = "TTRPCX_TEST_SERVE"

func init() {
	address := os.Getenv(serveRole)
	if address == "" {
		return
	}
	if err := serveUntilSIGTERM(address); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveUntilSIGTERM(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server, err := ttrpcx.NewServer(ttrpcx.ServerOptions{
		Address: address, Insecure: len(os.Args) > 1, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	testv1.HandleTest(server, testservice.Service{})
	return server.ListenAndServe(ctx)
}

// activate returns the command of a server that starts as systemd starts one: the files are its descriptors from 3 on.
// If pid is "$$", LISTEN_PID is the server's own.
func activate(address, pid, fds, names string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("sh", "-c", `LISTEN_PID=`+pid+` LISTEN_FDS="$1" LISTEN_FDNAMES="$2" exec "$0"`,
		os.Args[0], fds, names)
	cmd.Env = append(os.Environ(), serveRole+"="+address)
	cmd.ExtraFiles = files
	return cmd
}

// file returns the descriptor of a listener, to pass to another process.
func file(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// unixSocket listens on a unix socket, as systemd does.
func unixSocket(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	path := strings.TrimSuffix(socketPath(t), "/d/s") + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

func wantCall(t *testing.T, address string) {
	t.Helper()
	client, err := dial(t, ttrpcx.ClientOptions{Address: address, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = callAll(t.Context(), client)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestSocketActivation(t *testing.T) {
	first, firstPath := unixSocket(t)
	second, secondPath := unixSocket(t)
	files := []*os.File{file(t, first), file(t, second)}
	for name, c := range map[string]struct {
		address, fds, names, path string
	}{
		"the only one":                   {"systemd:", "1", "", firstPath},
		"the only one, with a name":      {"systemd:", "1", "one", firstPath},
		"by name":                        {"systemd:one", "1", "one", firstPath},
		"by name of two":                 {"systemd:two", "2", "one:two", secondPath},
		"by name, the first of the same": {"systemd:one", "2", "one:one", firstPath},
	} {
		t.Run(name, func(t *testing.T) {
			p := proctest.Start(t, activate(c.address, "$$", c.fds, c.names, files...))
			p.WaitFor("\"server start\" address=unix://" + c.path)
			wantCall(t, c.path)
			p.Signal(syscall.SIGTERM)
			if code := p.ExitCode(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if _, err := os.Lstat(c.path); err != nil {
				t.Errorf("the server removed systemd's socket: %v", err)
			}
		})
	}
}

func TestSocketActivationRefuses(t *testing.T) {
	first, _ := unixSocket(t)
	socket := file(t, first)
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	packets, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socketPathFlat(t), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socketPathFlat(t), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	connected, err := net.Dial("unix", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	regular, err := os.Open("systemd_linux_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()

	for name, c := range map[string]struct {
		address, pid, fds, names string
		files                    []*os.File
		want                     string
	}{
		"another process's":  {"systemd:", "1", "1", "", []*os.File{socket}, "passed no socket"},
		"no process":         {"systemd:", "", "1", "", []*os.File{socket}, "passed no socket"},
		"no count":           {"systemd:", "$$", "", "", []*os.File{socket}, "passed no socket"},
		"count not a number": {"systemd:", "$$", "x", "", []*os.File{socket}, `LISTEN_FDS="x"`},
		"count is zero":      {"systemd:", "$$", "0", "", nil, `LISTEN_FDS="0"`},
		"two without a name": {"systemd:", "$$", "2", "one:two", []*os.File{socket, socket}, "systemd:NAME"},
		"unknown name":       {"systemd:x", "$$", "2", "one:two", []*os.File{socket, socket}, `no socket called "x"`},
		"name beyond count":  {"systemd:two", "$$", "1", "one:two", []*os.File{socket}, `no socket called "two"`},
		"regular file":       {"systemd:", "$$", "1", "", []*os.File{regular}, "not a listening socket"},
		"nothing":            {"systemd:", "$$", "1", "", nil, "not a listening socket"},
		"connection": {
			"systemd:", "$$", "1", "", []*os.File{file(t, connected.(*net.UnixConn))}, "not a listening socket",
		},
		"datagram socket": {"systemd:", "$$", "1", "", []*os.File{file(t, datagrams)}, "not accept connections"},
		"packet socket":   {"systemd:", "$$", "1", "", []*os.File{file(t, packets)}, "want a stream"},
		"TCP without TLS": {"systemd:", "$$", "1", "", []*os.File{file(t, tcp)}, "it needs TLS.Cert"},
		"unix, insecure":  {"systemd: insecure", "$$", "1", "", []*os.File{socket}, "Insecure are for TCP"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := activate(strings.Fields(c.address)[0], c.pid, c.fds, c.names, c.files...)
			if extra := strings.Fields(c.address)[1:]; len(extra) > 0 {
				cmd.Args[2] += " " + strings.Join(extra, " ")
			}
			p := proctest.Run(t, cmd)
			if code := p.ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if !strings.Contains(p.Stderr(), "server: listen at systemd:") || !strings.Contains(p.Stderr(), c.want) {
				t.Errorf("the server says %q, want %q", p.Stderr(), c.want)
			}
		})
	}
}

// socketPathFlat returns a path for a socket in a directory that exists.
func socketPathFlat(t *testing.T) string { return strings.TrimSuffix(socketPath(t), "/d/s") + "/s" }

// TestNotify listens as systemd does, at both kinds of address that systemd uses.
func TestNotify(t *testing.T) {
	for name, address := range map[string]string{
		"path":     socketPathFlat(t),
		"abstract": fmt.Sprintf("@ttrpcx-notify-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer systemd.Close()
			_ = systemd.SetReadDeadline(time.Now().Add(patience))
			want := func(state string) {
				t.Helper()
				b := make([]byte, 100)
				if n, err := systemd.Read(b); err != nil || string(b[:n]) != state {
					t.Errorf("systemd is told %q, %v, want %q", b[:n], err, state)
				}
			}
			t.Setenv("NOTIFY_SOCKET", address)
			s := serve(t, ttrpcx.ServerOptions{})
			want("READY=1")
			if err := call(t.Context(), mustDial(t, s.options())); err != nil {
				t.Error(err)
			}
			s.cancel()
			want("STOPPING=1")
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", socketPathFlat(t))
		s := serve(t, ttrpcx.ServerOptions{})
		s.log.wantOnly(t, "level=WARN", "cannot notify systemd", "READY=1")
		if err := call(t.Context(), mustDial(t, s.options())); err != nil {
			t.Error(err)
		}
	})
}

// TestActivatedListener passes sockets to Listen in the test's own process. Each is the last descriptor of LISTEN_FDS,
// because the descriptors before it are the test's.
func TestActivatedListener(t *testing.T) {
	unixListener, path := unixSocket(t)
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	packets, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socketPathFlat(t), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	connection, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()

	a := newAuthority(t)
	files := a.issue("server")
	for name, c := range map[string]struct {
		socket  interface{ File() (*os.File, error) }
		options ttrpcx.ServerOptions
		want    string // of the error, "" for none
	}{
		"unix":            {unixListener, ttrpcx.ServerOptions{}, ""},
		"TCP with TLS":    {tcp, ttrpcx.ServerOptions{TLS: files}, ""},
		"TCP, insecure":   {tcp, ttrpcx.ServerOptions{Insecure: true}, ""},
		"TCP without TLS": {tcp, ttrpcx.ServerOptions{}, "it needs TLS.Cert"},
		"unix with TLS":   {unixListener, ttrpcx.ServerOptions{TLS: files}, "Insecure are for TCP"},
		"unix, insecure":  {unixListener, ttrpcx.ServerOptions{Insecure: true}, "Insecure are for TCP"},
		"packets":         {packets, ttrpcx.ServerOptions{}, "want a stream"},
		"connection":      {connection.(*net.UnixConn), ttrpcx.ServerOptions{}, "does not accept connections"},
		"unknown name":    {unixListener, ttrpcx.ServerOptions{Address: "systemd:two"}, `no socket called "two"`},
		"no name":         {unixListener, ttrpcx.ServerOptions{Address: "systemd:"}, "name one, as systemd:NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := syscall.Dup(int(file(t, c.socket).Fd()))
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
			t.Setenv("LISTEN_FDS", strconv.Itoa(fd-2)) // from 3 on
			t.Setenv("LISTEN_FDNAMES", strings.Repeat(":", fd-3)+"one")
			o := c.options
			if o.Address == "" {
				o.Address = "systemd:one"
			}
			if c.want != "" {
				_, err := ttrpcx.Listen(t.Context(), o)
				wantError(t, err, "listen at "+o.Address, c.want)
				return // Listen closes the descriptor for some reasons only, so the test does not close it
			}
			s := serve(t, o)
			for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
				if value, ok := os.LookupEnv(v); ok {
					t.Errorf("%s=%s is left to children", v, value)
				}
			}
			client := s.options()
			client.Insecure = o.Insecure
			if o.TLS != (ttrpcx.TLSFiles{}) {
				client = s.client(a.issue("client"))
			}
			if err := callAll(t.Context(), mustDial(t, client)); err != nil {
				t.Error(err)
			}
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			// The socket must still work, because systemd keeps it and passes it to the next server.
			addr := c.socket.(net.Listener).Addr()
			conn, err := net.Dial(addr.Network(), addr.String())
			if err != nil {
				t.Fatalf("the socket no longer takes connections: %v", err)
			}
			_ = conn.Close()
		})
	}
}
