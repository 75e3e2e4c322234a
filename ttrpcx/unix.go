package ttrpcx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// ErrInUse means that another server listens at the address already.
var ErrInUse = errors.New("address in use by another server: stop that one or take another address")

// unixListener is a listening unix socket with a lock, so that no other server takes its path.
type unixListener struct {
	*net.UnixListener
	path string
	id   fs.FileInfo // of the socket: another process may put another file at path
	lock *fileLock
	once sync.Once
}

// listenUnix listens on a socket that only its owner can connect to: it has mode 0600, in a directory that only its
// owner can write to (created with mode 0700 if missing). If it is shared, everybody can connect (0666, in a directory
// created with 0711), and Serve checks their credentials. If no server answers on an existing socket, because it was
// killed for example, the socket is replaced. If a server answers, listenUnix returns ErrInUse.
//
// If several servers start at once, a lock file next to the socket lets only one of them listen. The lock is held as
// long as the listener is open. One race remains: a server that takes no lock (another program, or any server on a
// platform without flock(2)) may bind its socket between our test of the old socket and its removal. Then the new one
// is removed.
func listenUnix(ctx context.Context, path string, shared bool) (_ *unixListener, err error) {
	mode, dirMode := fs.FileMode(0o600), fs.FileMode(0o700)
	if shared {
		mode, dirMode = 0o666, 0o711
	}
	if err := secureDir(filepath.Dir(path), dirMode); err != nil {
		return nil, err
	}
	lock, err := acquire(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(restrictBeforeBind)
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	ul := l.(*net.UnixListener)
	err = os.Chmod(path, mode)
	var id fs.FileInfo
	if err == nil {
		id, err = os.Lstat(path)
	}
	if err != nil {
		_ = ul.Close()
		return nil, err
	}
	ul.SetUnlinkOnClose(false) // our Close removes only our own socket
	return &unixListener{UnixListener: ul, path: path, id: id, lock: lock}, nil
}

// Close stops listening and removes the socket, unless another file has replaced it.
func (l *unixListener) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		if now, e := os.Lstat(l.path); e == nil && os.SameFile(l.id, now) {
			_ = os.Remove(l.path)
		}
		err = l.UnixListener.Close()
		l.lock.release()
	})
	return err
}

// secureDir makes sure that dir exists, that its owner is this user or root, and that only the owner can replace files
// in it. It does not check the directories above dir, where another user might be able to replace dir itself.
func secureDir(dir string, mode fs.FileMode) error {
	if err := makeDir(dir, mode); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if reason := unsafeDir(info); reason != "" {
		return fmt.Errorf("directory %s %s: use one that is yours alone (mode 0700)", dir, reason)
	}
	// The owner of a link can let it point elsewhere.
	if info, err = os.Lstat(dir); err != nil {
		return err
	} else if info.Mode()&fs.ModeSymlink != 0 && !ownedByUs(info) {
		return fmt.Errorf("directory %s is another user's symbolic link: use one that is yours alone (mode 0700)",
			dir)
	}
	return nil
}

// makeDir creates dir, with exactly that mode, and the missing directories above it.
func makeDir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, mode); {
	case err == nil:
		return os.Chmod(dir, mode) // the umask may have removed bits
	case errors.Is(err, fs.ErrExist):
		return nil
	default:
		return err
	}
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
