package ttrpcx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Dial connects to a server. Before it sends anything, it checks that options allow the server. The connection is for
// one ttrpc.NewClient. It sends the frames of concurrent calls together. When it is lost, it connects again, with the
// same checks: see wire.ClientConn. ctx bounds the first connection only.
func Dial(ctx context.Context, options ClientOptions) (net.Conn, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	address, err := ParseAddress(options.Address)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context) (net.Conn, error) { return dialOnce(ctx, address, options) }
	conn, err := wire.NewClientConn(ctx, dial, wire.ClientOptions{
		Logger: options.Logger, IOTimeout: options.IOTimeout, KeepAlive: options.KeepAlive,
		WaitForReady: options.WaitForReady,
	})
	if err != nil {
		return nil, err // conn would be a net.Conn that is not nil
	}
	return conn, nil
}

// DialOnce connects as Dial does, and returns the network's connection as it is: it is not made again when it is lost.
// It takes at most 20 seconds, or as long as ctx allows if that is less. options.IOTimeout, KeepAlive, Logger and
// WaitForReady have no effect.
func DialOnce(ctx context.Context, options ClientOptions) (net.Conn, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	address, err := ParseAddress(options.Address)
	if err != nil {
		return nil, err
	}
	return dialOnce(ctx, address, options)
}

func dialOnce(ctx context.Context, address Address, options ClientOptions) (net.Conn, error) {
	conn, err := dial(ctx, address, options)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w%s", address, cause(err), hint(err))
	}
	return conn, nil
}

// dialTimeout bounds what a server that is stuck can make a client wait for, if its context has no deadline.
const dialTimeout = 20 * time.Second

func dial(ctx context.Context, address Address, options ClientOptions) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	network, name, err := address.dialable()
	if err != nil {
		return nil, err
	}
	port := ""
	if network == "hvsock" {
		i := strings.LastIndexByte(name, ':')
		network, name, port = "unix", name[:i], name[i+1:]
	}
	conn, err := connect(ctx, network, name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if err := options.Allow.identify(conn, new(Peer)); err != nil {
		return nil, optionErrorf("the server's %v: add its user to %s if you trust it", err, optionUIDs)
	}
	if port != "" {
		return conn, connectGuest(ctx, conn, port)
	}
	if network != "tcp" || options.Insecure {
		return conn, nil
	}
	config, err := options.TLS.load()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(name)
	if err != nil {
		return nil, err
	}
	config.ServerName, _, _ = strings.Cut(host, "%") // certificates have no IPv6 zones
	tlsConn := &clientTLS{tls.Client(conn, config)}
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, refusedByServer(err)
	}
	return tlsConn, nil
}

// connect connects as net.Dialer does. While the queue of a unix socket's server is full, connect(2) does not wait, so
// connect tries again: anybody who may connect can fill the queue.
func connect(ctx context.Context, network, name string) (net.Conn, error) {
	if network == "vsock" {
		addr, err := parseVsock(name)
		if err != nil {
			return nil, err
		}
		return dialVsock(ctx, addr)
	}
	full := false
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		conn, err := new(net.Dialer).DialContext(ctx, network, name)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			full = true
		case full && errors.Is(err, context.DeadlineExceeded):
			return nil, fmt.Errorf("the server's queue of new connections is full: %w", context.DeadlineExceeded)
		default:
			return conn, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done(): // the next DialContext says so
		}
	}
}

// clientTLS makes an error of Read say that the server has refused the client. In TLS 1.3 the client's handshake is
// over before the server has seen the client's certificate, so the client learns of a refusal only when it reads.
type clientTLS struct{ *tls.Conn }

func (c *clientTLS) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, refusedByServer(err)
}

// Close closes the connection within a second or so, whatever the server does.
func (c *clientTLS) Close() error { return closeTLS(c.Conn) }

func refusedByServer(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // an alert, in crypto/tls
		return fmt.Errorf("the server refused the connection: %w", op.Err)
	}
	return err
}

// cause returns the error inside an error of package net, because the outer one repeats the address.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

// hint returns a likely reason for an error, or "" if none is known.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return " (is the server running?)"
	case errors.Is(err, syscall.EACCES):
		return " (the socket or its directory belongs to another user)"
	case errors.Is(err, io.EOF):
		return " (the server closed the connection during the TLS handshake: does it use TLS?)"
	}
	return ""
}
