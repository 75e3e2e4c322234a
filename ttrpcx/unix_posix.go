//go:build linux || darwin

package ttrpcx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
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

// openDir opens a directory in which only this user or root can replace a socket. It creates what is missing, with that
// mode. path is "" or ends in a slash, and so does prefix, which leads to the directory while dir is open.
//
// It goes from directory to directory, and follows a symbolic link only where no other user could have put it. Another
// user may be able to exchange a directory on the way, because the one above it is theirs or they can write to it. Then
// prefix leads through dir, so that socket, lock and modes stay in the directory that was judged. That is so on Linux.
// Elsewhere, that user can lead the server to another directory that only this user or root can write to.
func openDir(path string, mode fs.FileMode) (prefix string, dir *os.File, err error) {
	w := &dirWalk{names: splitPath(path), mode: mode}
	if w.dir, err = os.OpenFile(".", openOnly, 0); err != nil {
		return "", nil, err
	}
	for w.info, err = w.dir.Stat(); err == nil && len(w.names) > 0; {
		name := w.names[0]
		w.names = w.names[1:]
		err = w.step(name)
	}
	if err == nil {
		path, err = w.prefix(path)
	}
	if err != nil {
		_ = w.dir.Close()
		return "", nil, err
	}
	return path, w.dir, nil
}

// prefix returns openDir's result for the directory that the path has led to.
func (w *dirWalk) prefix(path string) (string, error) {
	name, through := w.dir.Name(), fmt.Sprintf("/proc/self/fd/%d/", w.dir.Fd())
	if reason := unsafeDir(w.info); reason != "" {
		return "", fmt.Errorf("directory %s %s: remove it, or use one that is yours alone (mode 0700)", name, reason)
	}
	if !w.exchangeable || runtime.GOOS != "linux" { // others have no path that leads through an open directory
		return path, nil
	}
	if _, err := os.Stat(through); err != nil {
		return "", fmt.Errorf("another user could exchange directory %s: mount /proc or use another path: %w",
			name, err)
	}
	return through, nil
}

// splitPath returns the names in the path. The first is "/" if the path is absolute.
func splitPath(path string) []string {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if strings.HasPrefix(path, "/") {
		names = slices.Insert(names, 0, "/")
	}
	return names
}

// dirWalk is on its way to a directory.
type dirWalk struct {
	dir          *os.File
	info         fs.FileInfo // of dir
	names        []string    // the rest of the way
	links        int         // that were followed
	mode         fs.FileMode // of new directories
	exchangeable bool        // another user could have led the way elsewhere
}

// step goes on to the file called name in the directory.
func (w *dirWalk) step(name string) error {
	next, info, err := openIn(w.dir, name)
	made := false
	if errors.Is(err, fs.ErrNotExist) {
		err = unix.Mkdirat(int(w.dir.Fd()), name, uint32(w.mode))
		if made = err == nil; err != nil && !errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "mkdir", Path: filepath.Join(w.dir.Name(), name), Err: err}
		}
		next, info, err = openIn(w.dir, name)
	}
	if err != nil {
		return err
	}
	theirs := unsafeDir(w.info) != ""
	if info.Mode()&fs.ModeSymlink != 0 {
		_ = next.Close()
		if theirs || !ownedByUs(info) {
			return fmt.Errorf("%s is a symbolic link that another user could have made: write the path without it",
				next.Name())
		}
		return w.follow(name)
	}
	// With the sticky bit, only the owners can rename a file: unlink(2).
	kept := w.info.Mode()&fs.ModeSticky != 0 && ownedByUs(w.info) && ownedByUs(info)
	w.exchangeable = w.exchangeable || theirs && !kept && name != "/"
	if made && !w.exchangeable { // the umask may have removed bits
		err = unix.Fchmodat(int(w.dir.Fd()), name, uint32(w.mode), 0)
	}
	_ = w.dir.Close()
	w.dir, w.info = next, info
	return err
}

// follow puts the target of a link in front of the rest of the way.
func (w *dirWalk) follow(name string) error {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(w.dir.Fd()), name, target)
	if w.links++; w.links > 40 {
		err = unix.ELOOP // as path_resolution(7) has it
	}
	if err != nil {
		return &fs.PathError{Op: "follow", Path: filepath.Join(w.dir.Name(), name), Err: err}
	}
	w.names = slices.Concat(splitPath(string(target[:n])), w.names)
	return nil
}

// openIn opens the file called name in the directory. name may be "/", too.
func openIn(dir *os.File, name string) (*os.File, fs.FileInfo, error) {
	path := filepath.Join(dir.Name(), name)
	if name == "/" {
		path = name
	}
	fd, err := unix.Openat(int(dir.Fd()), name, openOnly, 0)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	return f, info, err
}

// unsafeDir returns the reason why another user may replace files in the directory, or "".
func unsafeDir(info fs.FileInfo) string {
	switch {
	case !info.IsDir():
		return "is not a directory"
	case int64(owner(info)) == overflowUID():
		return fmt.Sprintf("belongs to a user that this user namespace does not map (uid %d)", owner(info))
	case !ownedByUs(info):
		return fmt.Sprintf("belongs to another user (uid %d)", owner(info))
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("is writable by others (%s)", info.Mode())
	}
	return ""
}

func ownedByUs(info fs.FileInfo) bool {
	uid := owner(info)
	return int64(uid) != overflowUID() && (uid == 0 || uid == uint32(os.Geteuid()))
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

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
			err = fmt.Errorf("%s there is not a lock file (%s, %d bytes): move it away or use another path",
				filepath.Base(name), ours.Mode(), ours.Size())
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
