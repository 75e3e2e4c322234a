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

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Dial connects to a server and checks that it is one of those that options allow before anything is sent. The
// connection is for one ttrpc.NewClient: it gathers what concurrent calls write, and it connects again, by the same
// checks, when a call finds that the server has gone (see wire.ClientConn). ctx bounds the first connection only.
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
		Logger: options.Logger, IOTimeout: options.IOTimeout, WaitForReady: options.WaitForReady,
	})
	if err != nil {
		return nil, err // not a nil *ClientConn in a net.Conn
	}
	return conn, nil
}

// DialOnce connects like Dial, to a connection for one call: it is as the network gives it, and its end is final.
// options.IOTimeout has no effect.
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

func dial(ctx context.Context, address Address, options ClientOptions) (_ net.Conn, err error) {
	network, name, err := address.dialable()
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if unixConn, ok := conn.(*net.UnixConn); ok {
		// What is not known on this platform cannot be checked; the server says so at its start.
		c, err := peerCredentials(unixConn)
		if errors.Is(err, errCannotTell) {
			return conn, nil
		} else if err != nil {
			return nil, err
		}
		if err := options.Allow.check(c); err != nil {
			return nil, optionErrorf("the server's %v: %s says who may be the server", err, optionUIDs)
		}
		return conn, nil
	}
	if options.Insecure {
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
	config.ServerName, _, _ = strings.Cut(host, "%") // certificates know no zones
	secured := &clientTLS{tls.Client(conn, config)}
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, refusedByServer(err)
	}
	return secured, nil
}

// clientTLS says by whom a connection was ended: in TLS 1.3 the client is done with the handshake before the server has
// seen its certificate, so that a refusal shows only when the client reads.
type clientTLS struct{ *tls.Conn }

func (c *clientTLS) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, refusedByServer(err)
}

func refusedByServer(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // crypto/tls, of an alert
		return fmt.Errorf("the server refused the connection: %w", op.Err)
	}
	return err
}

// cause returns what is behind an error of package net, without the address that it repeats.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

// hint returns what to do about an error, if that is known.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return " (is the server running?)"
	case errors.Is(err, syscall.EACCES):
		return " (the socket or its directory is another user's)"
	case errors.Is(err, io.EOF):
		return " (the server hung up on the TLS handshake: does it want TLS?)"
	}
	return ""
}
