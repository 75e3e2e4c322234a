//go:build unix

package e2e

import (
	"os"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// TestHeapFloor counts the server's collections by the lines that the runtime prints for them. The calls allocate some
// 300 MiB.
func TestHeapFloor(t *testing.T) {
	collections := func(env string, args ...string) (int, *proctest.Process) {
		t.Helper()
		address := proctest.Socket(t)
		cmd := server(append([]string{"-address", address}, args...)...)
		cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1", "GOMEMLIMIT=", env)
		p := proctest.Start(t, cmd)
		p.WaitFor("server start")
		client, err := newGoodClient(strings.TrimPrefix(address, "unix://"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.close()
		request := &testv1.UnaryRequest{Foo: strings.Repeat("x", 64<<10)}
		for range 1500 {
			if _, err := testv1.NewTestClient(client.Client).Unary(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		return strings.Count(p.Stderr(), " MB goal, "), p // short, because the log may come between parts of the line
	}
	without, _ := collections("GOGC=", "-heap-floor", "0")
	if with, _ := collections("GOGC="); with*2 > without {
		t.Errorf("%d collections by default and %d without a floor, want less than half", with, without)
	}
	n, p := collections("GOGC=100")
	if s := p.Stderr(); n*2 < without || strings.Contains(s, "heap floor") {
		t.Errorf("%d collections with GOGC=100 and %d without a floor; the log is\n%s", n, without, s)
	}
	n, p = collections("GOGC=100", "-heap-floor", "512MiB")
	if p.WaitFor("GOGC is set"); n*2 < without {
		t.Errorf("%d collections with GOGC=100 and a floor, %d without one", n, without)
	}
}
