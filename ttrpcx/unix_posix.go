//go:build linux || darwin

package ttrpcx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// restrictBeforeBind makes bind create the socket with mode 0600, so that other users cannot connect before its mode is
// set. Linux gives the file the descriptor's mode. Darwin refuses the call. There, only the directory protects the
// socket until the chmod after bind.
func restrictBeforeBind(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) }

// checkListening returns an error unless the socket listens. net.FileListener does not check that.
func checkListening(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var on int
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		on, optErr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	}); err != nil {
		return err
	}
	if optErr == nil && on == 0 {
		return errors.New("it does not accept connections")
	}
	return os.NewSyscallError("getsockopt SO_ACCEPTCONN", optErr)
}

// unsafeDir returns the reason why a socket is not safe in the directory, or "" if it is.
func unsafeDir(info fs.FileInfo) string {
	switch {
	case !info.IsDir():
		return "is not a directory"
	case !ownedByUs(info):
		return "belongs to another user"
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("is writable by others (%s)", info.Mode())
	}
	return ""
}

func ownedByUs(info fs.FileInfo) bool {
	uid := info.Sys().(*syscall.Stat_t).Uid
	return uid == 0 || uid == uint32(os.Geteuid())
}

// fileLock is an exclusive lock. The kernel releases it when the process ends.
type fileLock struct{ f *os.File }

// acquire takes the lock on the file called name, and creates the file if it is missing. It does not wait: it returns
// ErrInUse if another process holds the lock.
func acquire(name string) (*fileLock, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, ErrInUse
			}
			return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
		}
		ours, err := f.Stat()
		if err == nil && (!ours.Mode().IsRegular() || ours.Size() > 0) {
			err = fmt.Errorf("%s is not a lock file (%s, %d bytes): move it away or use another path",
				name, ours.Mode(), ours.Size())
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		// The lock's last holder may have removed our file meanwhile, and another process may have created a new one.
		if there, err := os.Lstat(name); err == nil && os.SameFile(ours, there) {
			return &fileLock{f}, nil
		}
		_ = f.Close()
	}
}

func (l *fileLock) release() {
	_ = os.Remove(l.f.Name())
	_ = l.f.Close()
}

// control calls f with the descriptor of conn and returns f's error.
func control(conn syscall.Conn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
