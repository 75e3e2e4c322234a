//go:build linux || darwin

package ttrpcx_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/ttrpcx"
)

const nobody = 65534

func listen(t *testing.T, path string, allow ttrpcx.Allow) (*ttrpcx.Listener, error) {
	t.Helper()
	log := new(journal)
	l, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: path, Allow: allow, Logger: log.logger()})
	if err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	return l, err
}

func mustListen(t *testing.T, path string) *ttrpcx.Listener {
	t.Helper()
	l, err := listen(t, path, ttrpcx.Allow{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil {
		t.Error(err)
	} else if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

// wantEntries fails the test unless the directory has exactly these entries.
func wantEntries(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), strings.Join(want, " "); got != want {
		t.Errorf("%s has the entries %q, want %q", dir, got, want)
	}
}

// staleSocket creates a socket at path on which no server listens.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSocketModes checks the modes of the socket and its directory with two umasks. One would remove the shared bits.
func TestSocketModes(t *testing.T) {
	for name, c := range map[string]struct {
		allow     ttrpcx.Allow
		dir, mode fs.FileMode
	}{
		"private":      {ttrpcx.Allow{}, 0o700, 0o600},
		"for a user":   {ttrpcx.Allow{UIDs: []uint32{nobody}}, 0o711, 0o666},
		"for a group":  {ttrpcx.Allow{GIDs: []uint32{nobody}}, 0o711, 0o666},
		"for yourself": {ttrpcx.Allow{UIDs: []uint32{uint32(os.Geteuid())}}, 0o711, 0o666},
	} {
		for _, umask := range []int{0o077, 0} {
			t.Run(name, func(t *testing.T) {
				path := socketPath(t)
				defer syscall.Umask(syscall.Umask(umask))
				l, err := listen(t, path, c.allow)
				if err != nil {
					t.Fatal(err)
				}
				wantMode(t, filepath.Dir(path), fs.ModeDir|c.dir)
				wantMode(t, path, fs.ModeSocket|c.mode)
				if got := l.String(); got != "unix://"+path {
					t.Errorf("the listener is called %q", got)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				wantEntries(t, filepath.Dir(path))
				if err := l.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a second Close returns %v, want net.ErrClosed", err)
				}
			})
		}
	}
}

// TestDirectoryThatLetsNobodyIn checks for a warning if the mode of an existing directory makes Allow useless.
func TestDirectoryThatLetsNobodyIn(t *testing.T) {
	path := socketPath(t)
	log := new(journal)
	o := ttrpcx.ServerOptions{Address: path, Allow: ttrpcx.Allow{UIDs: []uint32{nobody}}, Logger: log.logger()}
	for _, mode := range []fs.FileMode{0o700, 0o711} {
		if err := os.MkdirAll(filepath.Dir(path), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(path), mode); err != nil {
			t.Fatal(err)
		}
		l, err := ttrpcx.Listen(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if warned := len(log.lines("chmod it 711", filepath.Dir(path))) == 1; warned != (mode == 0o700) {
			t.Errorf("mode %o: warned is %t", mode, warned)
		}
		log.clear()
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	staleSocket(t, path)
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil { // as a killed server leaves it
		t.Fatal(err)
	}
	mustListen(t, path)
	_ = rawDial(t, "unix://"+path)
}

func TestLiveSocketIsRefused(t *testing.T) {
	t.Run("by its lock", func(t *testing.T) {
		path := socketPath(t)
		mustListen(t, path)
		_, err := listen(t, path, ttrpcx.Allow{})
		if !errors.Is(err, ttrpcx.ErrInUse) {
			t.Errorf("error is %v, want ErrInUse", err)
		}
		wantError(t, err, "unix://"+path, "in use")
		_ = rawDial(t, "unix://"+path)
		wantEntries(t, filepath.Dir(path), "s", "s.lock")
	})
	for name, backlog := range map[string]int{"by its answer": -1, "by its full backlog": 0} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			foreign, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // it takes no lock
			if err != nil {
				t.Fatal(err)
			}
			defer foreign.Close()
			if backlog >= 0 {
				fill(t, foreign, path)
			}
			if _, err := listen(t, path, ttrpcx.Allow{}); !errors.Is(err, ttrpcx.ErrInUse) {
				t.Errorf("error is %v, want ErrInUse", err)
			}
			wantEntries(t, filepath.Dir(path), "s")
		})
	}
}

// fill connects to the listener, which does not accept, until its backlog is full.
func fill(t *testing.T, l *net.UnixListener, path string) {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 0) }); err != nil || listenErr != nil {
		t.Fatal(err, listenErr)
	}
	for range 1000 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the backlog is not full")
}

// TestOtherFilesAreKept checks that Listen refuses a path with a file that is not a stale socket, and does not change
// it.
func TestOtherFilesAreKept(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(path string) error
		want string
	}{
		"regular file":  {func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) }, "not a socket"},
		"empty file":    {func(p string) error { return os.WriteFile(p, nil, 0o600) }, "not a socket"},
		"directory":     {func(p string) error { return os.Mkdir(p, 0o700) }, "not a socket"},
		"fifo":          {func(p string) error { return syscall.Mkfifo(p, 0o600) }, "not a socket"},
		"symbolic link": {func(p string) error { return os.Symlink("elsewhere", p) }, "not a socket"},
		"link to a socket": {
			func(p string) error { staleSocket(t, p+"1"); return os.Symlink(p+"1", p) }, "not a socket",
		},
		"datagram socket": {func(p string) error {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p, Net: "unixgram"})
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		}, "protocol wrong type"},
		"file at the lock's name": {
			func(p string) error { return os.WriteFile(p+".lock", []byte("mine"), 0o600) }, "not a lock file",
		},
		"fifo at the lock's name": {
			func(p string) error { return syscall.Mkfifo(p+".lock", 0o600) }, "not a lock file",
		},
		"link at the lock's name": {
			func(p string) error { return os.Symlink("elsewhere", p+".lock") }, "symbolic links",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.put(path); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, filepath.Dir(path))
			_, err := listen(t, path, ttrpcx.Allow{})
			wantError(t, err, path, c.want)
			if after := snapshot(t, filepath.Dir(path)); after != before {
				t.Errorf("the directory was\n%sand is now\n%s", before, after)
			}
		})
	}
}

// snapshot describes all files in a directory.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		s.WriteString(fs.FormatFileInfo(info) + "\n")
	}
	return s.String()
}

// TestUnsafeDirectories checks that Listen refuses a directory in which another user could replace the socket.
func TestUnsafeDirectories(t *testing.T) {
	for name, c := range map[string]struct {
		asRoot bool
		make   func(dir string) error
		want   string
	}{
		"world-writable": {false, func(d string) error { return mkdir(d, 0o777) }, "is writable by others"},
		"sticky":         {false, func(d string) error { return mkdir(d, fs.ModeSticky|0o777) }, "writable by others"},
		"group-writable": {false, func(d string) error { return mkdir(d, 0o770) }, "is writable by others"},
		"no directory":   {false, func(d string) error { return os.WriteFile(d, nil, 0o600) }, "is not a directory"},
		"another user's": {true, func(d string) error {
			return errors.Join(mkdir(d, 0o700), os.Chown(d, nobody, nobody))
		}, "belongs to another user"},
		"another user's link": {true, func(d string) error {
			return errors.Join(mkdir(d+"1", 0o700), os.Symlink(d+"1", d), os.Lchown(d, nobody, nobody))
		}, "a symbolic link that another user could have made"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.asRoot {
				proctest.Root(t)
			}
			path := socketPath(t)
			dir := filepath.Dir(path)
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := listen(t, path, ttrpcx.Allow{})
			wantError(t, err, path, c.want)
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				wantEntries(t, dir)
			}
		})
	}
	t.Run("own link", func(t *testing.T) {
		path := socketPath(t)
		dir := filepath.Dir(path)
		if err := errors.Join(mkdir(dir+"1", 0o700), os.Symlink(dir+"1", dir)); err != nil {
			t.Fatal(err)
		}
		mustListen(t, path)
	})
}

// mkdir creates a directory with the mode, regardless of the umask.
func mkdir(dir string, mode fs.FileMode) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode))
}

func TestListenWhereNothingCanBeMade(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := listen(t, filepath.Join(path, "below", "s"), ttrpcx.Allow{})
	wantError(t, err, "listen at unix://", "not a directory")
}

// TestRacingListeners starts several listeners at once on one stale socket, many times.
func TestRacingListeners(t *testing.T) {
	path := socketPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		staleSocket(t, path)
		start := make(chan struct{})
		var group sync.WaitGroup
		var winner atomic.Pointer[ttrpcx.Listener]
		var wins atomic.Int32
		for range 8 {
			group.Go(func() {
				<-start
				l, err := ttrpcx.Listen(context.Background(), ttrpcx.ServerOptions{Address: path})
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store(l)
				case !errors.Is(err, ttrpcx.ErrInUse):
					t.Errorf("a loser's error is %v, want ErrInUse", err)
				}
			})
		}
		close(start)
		group.Wait()
		if n := wins.Load(); n != 1 {
			t.Fatalf("%d listeners won, want 1", n)
		}
		_ = rawDial(t, "unix://"+path).Close()
		_ = winner.Load().Close()
		wantEntries(t, filepath.Dir(path))
	}
}

// TestListenersThatComeAndGo checks that at most one listener has the socket at any time, while lock files are created
// and removed.
func TestListenersThatComeAndGo(t *testing.T) {
	path := socketPath(t)
	var holding, won atomic.Int32
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				l, err := ttrpcx.Listen(context.Background(), ttrpcx.ServerOptions{Address: path})
				if errors.Is(err, ttrpcx.ErrInUse) {
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				if n := holding.Add(1); n != 1 {
					t.Errorf("%d listeners have the socket", n)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("the holder's socket: %v", err)
				}
				won.Add(1)
				holding.Add(-1)
				_ = l.Close()
			}
		})
	}
	group.Wait()
	if won.Load() == 0 {
		t.Error("no listener ever won")
	}
	wantEntries(t, filepath.Dir(path))
}

// TestCloseKeepsFilesOfOthers removes the listener's socket, or replaces it by another file, before Close.
func TestCloseKeepsFilesOfOthers(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"socket": func(p string) error { staleSocket(t, p); return nil },
		"file":   func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			l := mustListen(t, path)
			// Move it instead of removing it: its replacement could get the inode number of a removed file.
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			wantEntries(t, filepath.Dir(path), "s", "s.old")
		})
	}
	t.Run("nothing", func(t *testing.T) {
		path := socketPath(t)
		l := mustListen(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
