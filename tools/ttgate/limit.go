package main

import (
	"log"
	"log/slog"
	"net"
	"sync"
)

// quota bounds what all clients have together, and what those of one network address have, which is three quarters of
// it, so that others find room beside them.
type quota struct {
	limit int

	mu    sync.Mutex
	total int
	hosts map[string]int
}

func newQuota(limit int) *quota { return &quota{limit: limit, hosts: map[string]int{}} }

// take reports whether there is room for n more, and takes it if so.
func (q *quota) take(host string, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.total+n > q.limit || q.hosts[host]+n > max(1, q.limit/4*3) {
		return false
	}
	q.total += n
	q.hosts[host] += n
	return true
}

func (q *quota) give(host string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total -= n
	if q.hosts[host] -= n; q.hosts[host] == 0 {
		delete(q.hosts, host)
	}
}

// taken returns how much all clients have.
func (q *quota) taken() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

// limited is a listener that closes connections at once which are too many.
type limited struct {
	net.Listener
	*gate
}

// Accept returns the next connection that is not too many.
func (l limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host := hostOf(conn.RemoteAddr().String())
		if l.connections.take(host, 1) {
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() { l.connections.give(host, 1) })}, nil
		}
		l.metrics.refused.Inc()
		l.log.Warn("connection refused", "peer", conn.RemoteAddr().String(), "reason", "too many connections")
		_ = conn.Close()
	}
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
