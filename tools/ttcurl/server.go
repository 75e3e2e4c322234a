package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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
				err = fmt.Errorf("connect to %s: not done within %v (-connect-timeout)",
					o.address, seconds(o.connectTimeout))
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

func (o *options) dial(ctx context.Context) (net.Conn, error) {
	options := ttrpcx.ClientOptions{Address: o.address, Allow: o.allow.Allow, Insecure: o.plaintext}
	hostport, tcp := strings.CutPrefix(o.address, "tcp://")
	if !tcp || o.plaintext {
		return ttrpcx.DialOnce(ctx, options)
	}
	// TLS is mutual among the starter's programs; other servers want less, and some cannot be verified.
	config, err := grpcurl.ClientTLSConfig(o.insecure, o.cacert, o.cert, o.key)
	if err != nil {
		return nil, err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", hostport)
	if err != nil {
		err = fmt.Errorf("connect to %s: %w", o.address, err)
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			err = fmt.Errorf("%w (the server does not speak TLS: -plaintext does without)", err)
		}
		return nil, err
	}
	return conn, nil
}

// connectTook is how long the last connection took.
func (s *server) connectTook() time.Duration { return time.Duration(s.took.Load()) }
