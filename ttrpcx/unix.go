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

// ErrInUse says that a server already answers at the address.
var ErrInUse = errors.New("address in use by another server: stop that one or take another address")

// unixListener is a unix socket that is its server's alone while it is open.
type unixListener struct {
	*net.UnixListener
	path string
	id   fs.FileInfo // of the socket, to tell it from one that another process put there
	lock *fileLock
	once sync.Once
}

// listenUnix listens on a socket that only its owner can reach: mode 0600, in a directory that nobody else can write to
// (created 0700 if missing). If it is shared, others may reach it too (0666, in a directory created 0711), for them to be
// judged by their credentials. A socket that nobody answers on, such as a killed server's, is replaced; a live one is not.
//
// A lock file beside the socket, held as long as the listener, makes one winner of servers that start together. What
// remains is a server that does not take the lock (another program, or any on a platform without flock(2)) and that
// binds between the probe and the removal: its socket would be removed.
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
	ul.SetUnlinkOnClose(false) // Close removes it, if it is still ours
	return &unixListener{UnixListener: ul, path: path, id: id, lock: lock}, nil
}

// Close stops listening and removes the socket, unless another has taken its place.
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

// secureDir makes sure that dir exists and that nobody but its owner, who is this user or root, can replace what is in
// it. Who could replace dir itself, by way of the directories above it, is not looked at.
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
	// A link can be pointed elsewhere by its owner.
	if info, err = os.Lstat(dir); err != nil {
		return err
	} else if info.Mode()&fs.ModeSymlink != 0 && !ownedByUs(info) {
		return fmt.Errorf("directory %s is another user's symbolic link: use one that is yours alone (mode 0700)", dir)
	}
	return nil
}

// makeDir makes dir, with exactly that mode, and what is missing above it.
func makeDir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, mode); {
	case err == nil:
		return os.Chmod(dir, mode) // the umask may have kept out those whom mode lets in
	case errors.Is(err, fs.ErrExist):
		return nil
	default:
		return err
	}
}

// removeStale removes the socket at path if nobody answers on it. Whatever is not a socket stays.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("what is there is not a socket (%s): move it away or use another path", info.Mode())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return ErrInUse
	case errors.Is(err, syscall.EAGAIN): // its backlog is full: connect(2)
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}
