package ttrpcx

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// vsockConn is a connection over vsock(7), which package net does not have.
type vsockConn struct {
	file          *os.File // non-blocking
	local, remote net.Addr
}

var _ net.Conn = (*vsockConn)(nil)

func (c *vsockConn) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	return n, vsockError("read", err)
}

func (c *vsockConn) Write(p []byte) (int, error) {
	n, err := c.file.Write(p)
	return n, vsockError("write", err)
}

func (c *vsockConn) Close() error                       { return vsockError("close", c.file.Close()) }
func (c *vsockConn) LocalAddr() net.Addr                { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr               { return c.remote }
func (c *vsockConn) SetDeadline(t time.Time) error      { return c.file.SetDeadline(t) }
func (c *vsockConn) SetReadDeadline(t time.Time) error  { return c.file.SetReadDeadline(t) }
func (c *vsockConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// vsockError makes an error of an os.File one of package net.
func vsockError(op string, err error) error {
	path, ok := errors.AsType[*fs.PathError](err)
	if !ok {
		return err // io.EOF, or nil
	}
	if errors.Is(err, os.ErrClosed) {
		path.Err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "vsock", Err: path.Err}
}

// vsockSocket returns a new socket, and lets prepare bind or connect it.
func vsockSocket(prepare func(fd int) error) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := prepare(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

func dialVsock(ctx context.Context, addr vsockAddr) (net.Conn, error) {
	file, err := vsockSocket(func(fd int) error {
		err := unix.Connect(fd, &unix.SockaddrVM{CID: addr.cid, Port: addr.port})
		if errors.Is(err, unix.EINPROGRESS) {
			return nil
		}
		return os.NewSyscallError("connect", err)
	})
	if err == nil {
		err = waitConnected(ctx, file)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &vsockConn{file, vsockAddr{cid: anyCID}, addr}, nil
}

// waitConnected waits for the end of connect(2), or of ctx.
func waitConnected(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if code != 0 {
			err = unix.Errno(code)
		}
		failed = os.NewSyscallError("connect", err)
		_, err = unix.Getpeername(int(fd))
		return failed != nil || !errors.Is(err, unix.ENOTCONN)
	})
	if !stop() {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}

// vsockListener is a listener on vsock(7).
type vsockListener struct {
	file *os.File // non-blocking
	addr vsockAddr
}

// listenVsock listens at addr. If its port is 0, the kernel chooses a free one, as on TCP.
func listenVsock(addr vsockAddr) (net.Listener, error) {
	if addr.port == 0 {
		addr.port = unix.VMADDR_PORT_ANY
	}
	file, err := vsockSocket(func(fd int) error {
		if err := unix.Bind(fd, &unix.SockaddrVM{CID: addr.cid, Port: addr.port}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		sa, err := unix.Getsockname(fd)
		addr = vsockOf(sa)
		return errors.Join(err, os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN)))
	})
	if err != nil {
		return nil, err
	}
	return &vsockListener{file, addr}, nil
}

func (l *vsockListener) Accept() (net.Conn, error) {
	var fd int
	var peer unix.Sockaddr
	var failed error
	raw, err := l.file.SyscallConn()
	if err == nil {
		err = raw.Read(func(listener uintptr) (done bool) {
			fd, peer, failed = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return !errors.Is(failed, unix.EAGAIN)
		})
	}
	if err != nil { // Close is the only reason
		failed = net.ErrClosed
	}
	if failed != nil {
		return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.addr, Err: failed}
	}
	return &vsockConn{os.NewFile(uintptr(fd), "vsock"), l.addr, vsockOf(peer)}, nil
}

func (l *vsockListener) Addr() net.Addr { return l.addr }
func (l *vsockListener) Close() error   { return vsockError("close", l.file.Close()) }

func vsockOf(sa unix.Sockaddr) vsockAddr {
	if vm, ok := sa.(*unix.SockaddrVM); ok {
		return vsockAddr{vm.CID, vm.Port}
	}
	return vsockAddr{cid: anyCID} // nobody's
}
