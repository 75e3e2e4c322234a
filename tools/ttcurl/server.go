package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fullstorydev/grpcurl"

	"example.com/ttrpc-starter/tools/grpcconn"
	"example.com/ttrpc-starter/ttrpcx"
)

// server is where the calls go.
type server struct {
	*grpcconn.Conn
	options *options
	took    atomic.Int64 // nanoseconds that the last connection took
	failed  atomic.Pointer[error]
	spare   atomic.Pointer[grpcconn.Conn] // has a connection that the next call may use
}

func newServer(o *options) *server {
	s := &server{options: o}
	s.Conn = grpcconn.New(func(ctx context.Context) (net.Conn, error) {
		started := time.Now()
		timed, cancel := context.WithTimeout(ctx, seconds(o.connectTimeout))
		defer cancel()
		conn, err := o.dial(timed)
		if err != nil {
			if timed.Err() != nil && ctx.Err() == nil {
				_, handshake := errors.AsType[handshakeError](err)
				err = fmt.Errorf("connect to %s: not done within %v (-connect-timeout): %w",
					o.address, seconds(o.connectTimeout), os.ErrDeadlineExceeded)
				if handshake {
					err = handshakeError{err}
				}
			}
			s.failed.Store(&err)
		}
		s.took.Store(int64(time.Since(started)))
		return conn, err
	})
	return s
}

// dialError is why the server could not be reached; nil if it could.
func (s *server) dialError() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// forCall returns the connection for the one call of the command.
func (s *server) forCall() *grpcconn.Conn {
	if spare := s.spare.Load(); spare != nil {
		return spare
	}
	return s.Conn
}

// handshakeError says that TLS could not begin.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

func (o *options) dial(ctx context.Context) (net.Conn, error) {
	hostport, tcp := strings.CutPrefix(o.address, "tcp://")
	options := ttrpcx.ClientOptions{Address: o.address, Allow: o.allow.Allow, Insecure: tcp && o.plaintext}
	if !tcp || o.plaintext {
		return ttrpcx.DialOnce(ctx, options)
	}
	// TLS is mutual among the starter's programs; other servers want less, and some cannot be verified.
	config, err := grpcurl.ClientTLSConfig(o.insecure, o.cacert, o.cert, o.key)
	if err != nil {
		return nil, err
	}
	config.ServerName = o.serverName
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", hostport)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.address, err)
	}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(hostport)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, handshakeError{fmt.Errorf("connect to %s: TLS: %w", o.address, err)}
	}
	return secure, nil
}

// connectTook is how long the last connection took.
func (s *server) connectTook() time.Duration { return time.Duration(s.took.Load()) }
