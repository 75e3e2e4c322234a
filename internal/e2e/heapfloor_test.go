//go:build unix

package e2e

import (
	"os"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// TestHeapFloor checks whether a server collects garbage, by the line that the runtime prints for each collection. The
// calls allocate about 30 MiB.
func TestHeapFloor(t *testing.T) {
	const collection = " MB goal, " // short, because the log may come between parts of the line
	start := func(env string, args ...string) *proctest.Process {
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
		for range 150 {
			if _, err := testv1.NewTestClient(client.Client).Unary(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}

	start("GOGC=").WaitFor(collection)
	if p := start("GOGC=", "-heap-floor", "512MiB"); strings.Contains(p.Stderr(), collection) {
		t.Error("the server collected far below the floor")
	}
	p := start("GOGC=100", "-heap-floor", "512MiB")
	p.WaitFor("GOGC is set")
	p.WaitFor(collection)
}
