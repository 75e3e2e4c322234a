package ttrpcx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// ErrInUse means that another server listens at the address already.
var ErrInUse = errors.New("address in use by another server: stop that one or take another address")

// unixListener is a listening unix socket with a lock, so that no other server takes its path.
type unixListener struct {
	*net.UnixListener
	path string // as asked for
	at   string // the same file, with openDir's name for the directory
	dir  *os.File
	id   fs.FileInfo // of the socket: another process may put another file at path
	lock *fileLock
	once sync.Once
}

// listenUnix listens on a socket that only its owner can connect to: it has mode 0600, in a directory that only its
// owner can write to (created with mode 0700 if missing). If it is shared, everybody can connect (0666, in a directory
// created with 0711), and Serve checks their credentials. If no server answers on an existing socket, because it was
// killed for example, the socket is replaced. If a server answers, listenUnix returns ErrInUse.
//
// The directory is opened once: see openDir. If several servers start at once, a lock file next to the socket lets only
// one of them listen. The lock is held as long as the listener is open. One race remains: a server that takes no lock
// (another program, or any server on a platform without flock(2)) may bind its socket between our test of the old
// socket and its removal. Then the new one is removed.
func listenUnix(ctx context.Context, path string, shared bool) (_ *unixListener, err error) {
	l := &unixListener{path: path}
	mode, dirMode := fs.FileMode(0o600), fs.FileMode(0o700)
	if shared {
		mode, dirMode = 0o666, 0o711
	}
	dir, name := filepath.Split(path)
	if dir, l.dir, err = openDir(dir, dirMode); err != nil {
		return nil, err
	}
	l.at = dir + name
	defer func() {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			failed.Path = strings.Replace(failed.Path, l.at, path, 1)
		}
		if err != nil {
			l.release()
		}
	}()
	if limit := unixPathLimit(); len(l.at) >= limit {
		return nil, fmt.Errorf("another user could exchange the socket's directory, so its name has at most %d bytes",
			limit-1-len(l.at)+len(name))
	}
	if l.lock, err = acquire(l.at + ".lock"); err != nil {
		return nil, err
	}
	return l, l.bind(ctx, mode)
}

// bind replaces a stale socket by one that listens.
func (l *unixListener) bind(ctx context.Context, mode fs.FileMode) error {
	if err := removeStale(ctx, l.at); err != nil {
		return err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(restrictBeforeBind)
	}}
	bound, err := config.Listen(ctx, "unix", l.at)
	if err != nil {
		return err
	}
	l.UnixListener = bound.(*net.UnixListener)
	err = os.Chmod(l.at, mode) // only this user or root can put a link there
	if err == nil {
		l.id, err = os.Lstat(l.at)
	}
	if err != nil {
		_ = l.UnixListener.Close()
		return err
	}
	l.SetUnlinkOnClose(false) // our Close removes only our own socket
	return nil
}

// Addr returns the path that was asked for. The kernel knows the socket by the path that openDir returned.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the socket, unless another file has replaced it.
func (l *unixListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		if now, e := os.Lstat(l.at); e == nil && os.SameFile(l.id, now) {
			_ = os.Remove(l.at)
		}
		err = l.UnixListener.Close()
		l.release()
	})
	return err
}

func (l *unixListener) release() {
	if l.lock != nil {
		l.lock.release()
	}
	_ = l.dir.Close() // last, because the other paths may lead through it
}

// removeStale removes the socket at path if no server answers on it. A file that is not a socket is an error.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("the file there is not a socket (%s): move it away or use another path", info.Mode())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return ErrInUse
	case errors.Is(err, syscall.EAGAIN): // the server's backlog is full: connect(2)
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}
