//go:build linux

package e2e

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
)

// TestDescriptors has one user, which is an address on plain TCP, take all connections that a server may have with few
// descriptors. Another user's call is answered.
func TestDescriptors(t *testing.T) {
	limited := exec.Command("sh", "-c", `ulimit -n 64 && exec "$0" "$@"`,
		server().Path, "-address", "tcp://127.0.0.1:0", "-insecure")
	s := proctest.Start(t, limited)
	s.WaitFor("server start")
	_, address, _ := strings.Cut(s.Stderr(), "server start address=tcp://")
	address, _, _ = strings.Cut(address, "\n")

	greedy := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: time.Minute}
	for range 100 {
		conn, err := greedy.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	p := proctest.Run(t, client("-address", "tcp://"+address, "-insecure", "-all", "-timeout", "10s"))
	if code := p.ExitCode(); code != 0 {
		t.Errorf("another user's exit code is %d, want 0", code)
	}
	if log := s.Stderr(); !strings.Contains(log, "24 connections of host 127.0.0.2 are open") ||
		strings.Contains(log, "accept failed") {
		t.Error("the server did not refuse connections for its own limit")
	}
}
