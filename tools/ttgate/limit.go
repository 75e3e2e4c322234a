package main

import (
	"log"
	"log/slog"
	"net"
	"sync"
)

// limited is a listener that closes connections at once which are too many: of all clients, or of one network address.
type limited struct {
	net.Listener
	*gate

	mu    sync.Mutex
	total int
	hosts map[string]int
}

func (g *gate) limit(l net.Listener) net.Listener {
	return &limited{Listener: l, gate: g, hosts: map[string]int{}}
}

// Accept returns the next connection that is not too many.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if l.enter(host) {
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(host) })}, nil
		}
		l.metrics.refused.Inc()
		l.log.Warn("connection refused", "peer", conn.RemoteAddr().String(), "reason", "too many connections")
		_ = conn.Close()
	}
}

func (l *limited) enter(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.maxConnections || l.hosts[host] >= max(1, l.maxConnections*3/4) {
		return false
	}
	l.total++
	l.hosts[host]++
	l.metrics.conns.Set(float64(l.total))
	return true
}

func (l *limited) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.hosts[host]--; l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
	l.metrics.conns.Set(float64(l.total))
}

type limitedConn struct {
	net.Conn
	leave func()
}

// Close ends the count of the connection.
func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// errorLog is for what package net/http has to say, which is about single connections.
func (g *gate) errorLog() *log.Logger { return slog.NewLogLogger(g.log.Handler(), slog.LevelDebug) }
