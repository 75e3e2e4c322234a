package main

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
)

// limitListener closes the connections that are too many.
type limitListener struct {
	net.Listener
	max  int64
	log  *slog.Logger
	open atomic.Int64
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.max {
			return &limitedConn{Conn: conn, open: &l.open}, nil
		}
		l.open.Add(-1)
		l.log.Warn("connection refused", "reason", "-max-connections allows no more")
		_ = conn.Close()
	}
}

type limitedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
