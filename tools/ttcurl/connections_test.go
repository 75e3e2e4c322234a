package main

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// TestConnections shows how many connections a call takes: one, and another one only for the server's reflection. A
// listener that takes no more than that can be called.
func TestConnections(t *testing.T) {
	_, plain := stock(t)
	_, reflects := stock(t, "-reflection")
	schema := protoset(t)
	for name, test := range map[string]struct {
		server string
		most   int
		args   string
	}{
		"unary":                    {reflects, 1, `-protoset $SCHEMA test.v1.Test/Unary`},
		"server stream":            {reflects, 1, `-protoset $SCHEMA test.v1.Test/Split -d {"text":"a"}`},
		"client stream":            {plain, 1, `-protoset $SCHEMA test.v1.Test/Join -d {"word":"a"}`},
		"both":                     {plain, 1, `-protoset $SCHEMA test.v1.Test/Echo -d {"message":"a"}`},
		"unasked":                  {reflects, 1, `-protoset $SCHEMA -use-reflection=false test.v1.Test/Join`},
		"reflection":               {reflects, 2, `test.v1.Test/Echo -d {"message":"a"}`},
		"client stream, reflected": {reflects, 2, `-protoset $SCHEMA test.v1.Test/Join`},
		"no reflection":            {plain, 1, `-use-reflection -protoset $SCHEMA test.v1.Test/Unary`},
		"list":                     {reflects, 1, `list`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, count := relay(t, test.server, test.most)
			args := strings.Fields(strings.ReplaceAll(test.args, "$SCHEMA", schema))
			p := proctest.Run(t, ttcurl(append([]string{address}, args...)...))
			if code := p.ExitCode(); code != 0 || count.Load() != int32(test.most) {
				t.Errorf("it took %d connections, want %d, and exited with %d", count.Load(), test.most, code)
			}
		})
	}
}

// relay listens for no more than the given number of connections to the server at path, and counts them.
func relay(t *testing.T, path string, most int) (address string, count *atomic.Int32) {
	t.Helper()
	address = strings.TrimPrefix(proctest.Socket(t), "unix://")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	count = new(atomic.Int32)
	go func() {
		defer l.Close()
		for range most {
			near, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			far, err := net.Dial("unix", path)
			if err != nil {
				near.Close()
				return
			}
			go pass(near, far)
			go pass(far, near)
		}
	}()
	return address, count
}

// pass copies until one of both ends.
func pass(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	from.Close()
	to.Close()
}
