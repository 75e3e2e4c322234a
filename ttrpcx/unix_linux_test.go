package ttrpcx_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/ttrpc-starter/ttrpcx"
)

// TestExchangedDirectory lets another user exchange a directory against a link all the time, while a server starts and
// stops. Nothing may change where the link leads.
func TestExchangedDirectory(t *testing.T) {
	for name, below := range map[string]string{"the socket's": "s", "one above it": "d/s"} {
		t.Run(name, func(t *testing.T) {
			parent, outside := sharedDir(t), filepath.Dir(socketPath(t))
			dir, link := filepath.Join(parent, "dir"), filepath.Join(parent, "link")
			for _, root := range []string{dir, outside} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, below)), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			secret := filepath.Join(outside, below)
			err := errors.Join(os.Symlink(outside, link), os.WriteFile(secret, []byte("secret"), 0o600),
				os.Lchown(link, nobody, nobody), os.Chown(parent, nobody, nobody))
			if err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, filepath.Dir(secret))

			var started, stop atomic.Bool
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				asNobody(t, nobody, nil, func() {
					for !stop.Load() {
						err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
						if err != nil {
							t.Errorf("exchange the directory: %v", err)
							return
						}
					}
				})
			}()
			o := ttrpcx.ServerOptions{
				Address: filepath.Join(dir, below), Allow: ttrpcx.Allow{UIDs: []uint32{nobody}},
				Logger: slog.New(slog.DiscardHandler),
			}
			for i := 0; i < 2000 || !started.Load() && i < 20000; i++ {
				l, err := ttrpcx.Listen(t.Context(), o)
				if err == nil {
					started.Store(true)
					_ = l.Close()
				}
			}
			stop.Store(true)
			<-ended
			if !started.Load() {
				t.Error("no server ever started, so nothing was tested")
			}
			if after := snapshot(t, filepath.Dir(secret)); after != before {
				t.Errorf("outside was\n%sand is now\n%s", before, after)
			}
		})
	}
}

// TestExchangeableDirectory checks that a server works where another user could exchange its directory.
func TestExchangeableDirectory(t *testing.T) {
	path := socketPath(t)
	if err := os.Chmod(filepath.Dir(filepath.Dir(path)), 0o777); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second replaces what a killed server leaves
		s := serve(t, ttrpcx.ServerOptions{Address: path})
		if s.address != "unix://"+path {
			t.Errorf("the address is %s, want the path %s", s.address, path)
		}
		if err := call(t.Context(), mustDial(t, s.options())); err != nil {
			t.Error(err)
		}
		if _, err := listen(t, path, ttrpcx.Allow{}); !errors.Is(err, ttrpcx.ErrInUse) {
			t.Errorf("error is %v, want ErrInUse", err)
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		wantEntries(t, filepath.Dir(path))
		staleSocket(t, path)
	}
	t.Chdir(filepath.Dir(filepath.Dir(path)))
	_, err := listen(t, "d/"+strings.Repeat("x", 100), ttrpcx.Allow{})
	wantError(t, err, "name has at most")
}

// TestDialWaitsForBacklog dials a server whose queue of new connections is full.
func TestDialWaitsForBacklog(t *testing.T) {
	path := socketPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fill(t, l, path)
	o := ttrpcx.ClientOptions{Address: path}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = ttrpcx.DialOnce(ctx, o)
	wantError(t, err, "connect to unix://"+path, "queue of new connections is full")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want DeadlineExceeded inside", err)
	}

	dialled := make(chan error, 1)
	go func() {
		conn, err := ttrpcx.DialOnce(t.Context(), o)
		if err == nil {
			_ = conn.Close()
		}
		dialled <- err
	}()
	for {
		select {
		case err := <-dialled:
			if err != nil {
				t.Errorf("the queue was emptied, but the client got %v", err)
			}
			return
		default:
			_ = l.SetDeadline(time.Now().Add(5 * time.Millisecond))
			if conn, err := l.Accept(); err == nil {
				_ = conn.Close()
			}
		}
	}
}

// TestDefaultAddressOfUsers checks that the default is in a place that other users cannot take first, if there is one.
func TestDefaultAddressOfUsers(t *testing.T) {
	home := sharedDir(t)
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 107)
	temporary := filepath.Join(os.TempDir(), "app-65534", "app.sock")
	for _, c := range []struct {
		root            bool
		xdg, home, want string
	}{
		{true, "", home, "/run/app/app.sock"},
		{true, "/xdg", home, "/xdg/app/app.sock"},
		{true, long, home, "/run/app/app.sock"},
		{false, "/xdg", home, "/xdg/app/app.sock"},
		{false, "", home, home + "/.cache/app/app.sock"},
		{false, long, home, home + "/.cache/app/app.sock"},
		{false, "", "", temporary},
		{false, "", "/", temporary}, // root's
		{false, "", "/nonexistent", temporary},
	} {
		for name, value := range map[string]string{
			"TTRPC_ADDRESS": "", "XDG_CACHE_HOME": "", "XDG_RUNTIME_DIR": c.xdg, "HOME": c.home,
		} {
			t.Setenv(name, value)
		}
		got := ttrpcx.DefaultAddress("app")
		if !c.root {
			asNobody(t, nobody, nil, func() { got = ttrpcx.DefaultAddress("app") })
		}
		if want := "unix://" + c.want; got != want {
			t.Errorf("with %+v the default is %s", c, got)
		}
	}
}

// TestSquattedDirectory checks the error for a directory that another user has made in the temporary directory.
func TestSquattedDirectory(t *testing.T) {
	dir := sharedDir(t)
	if err := os.Chown(dir, 70000, 70000); err != nil {
		t.Fatal(err)
	}
	_, err := listen(t, filepath.Join(dir, "s"), ttrpcx.Allow{})
	wantError(t, err, "directory "+dir, "belongs to another user (uid 70000)", "use one that is yours alone")
}
