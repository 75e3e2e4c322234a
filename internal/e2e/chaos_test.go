//go:build unix

package e2e

import (
	"flag"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
)

var (
	chaosFrames = flag.Int64("frames", 20000, "`number` of frames that TestChaos sends; 1000000 is the long run")
	chaosSeed   = flag.Uint64("seed", 0, "`number` that determines what TestChaos sends; 0 means a new one each time")
)

const (
	chaosWorkers  = 8
	chaosMaxCalls = 64
)

func newChaos(path string, frames int64) *chaos {
	c := &chaos{path: path, seed: *chaosSeed, frames: frames, maxCalls: chaosMaxCalls}
	for c.seed == 0 {
		c.seed = rand.Uint64()
	}
	return c
}

// TestChaos sends a server the frames and bytes that a bad or broken peer could send. The server must answer valid
// calls, and close connections that break the rules. At the end it must have as many goroutines and descriptors as a
// new server.
func TestChaos(t *testing.T) {
	fresh := startWatched(t, proctest.Socket(t))
	descriptors := fresh.descriptors(t)
	fresh.wantServed(t) // so that its start is over
	fresh.untilIdle(t, descriptors)
	want := len(fresh.goroutines(t))

	s := startWatched(t, proctest.Socket(t), "-max-calls", strconv.Itoa(chaosMaxCalls))
	c := newChaos(s.path, *chaosFrames)
	start := time.Now()
	err := c.run(chaosWorkers)
	took := time.Since(start)
	t.Logf("%d frames on %d connections in %v: %d calls answered, %d connections cut off, seed %d",
		c.sent.Load(), c.connections.Load(), took.Round(time.Millisecond), c.answered.Load(), c.refused.Load(), c.seed)
	if err != nil {
		t.Errorf("seed %d: %v", c.seed, err)
	}
	select {
	case <-s.Ended():
		t.Fatal("the server ended")
	default:
	}
	if c.answered.Load() == 0 || c.refused.Load() == 0 || s.count(logClosed) == 0 {
		t.Errorf("no call was answered, or no connection was cut off")
	}
	s.untilIdle(t, descriptors)
	got := s.goroutines(t)
	if len(got) != want {
		t.Errorf("the server has %d goroutines, want %d as in a new one:\n%s",
			len(got), want, strings.Join(got, "\n\n"))
	}
	s.wantNoRace(t)
	t.Logf("%d descriptors and %d goroutines, as at the start; %d calls served", descriptors, len(got), s.count(logEnd))
}

// TestChaosKillsStock checks that the driver is dangerous: it makes a plain ttrpc server panic.
func TestChaosKillsStock(t *testing.T) {
	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	p := proctest.Start(t, stock("serve", path))
	p.WaitFor("serving")
	c := newChaos(path, 1_000_000)
	c.blind = true
	err := c.run(chaosWorkers)
	if err == nil {
		t.Fatalf("seed %d: the stock server still runs after %d frames", c.seed, c.sent.Load())
	}
	if code := p.ExitCode(); code != 2 {
		t.Errorf("exit code is %d, want 2 for a panic", code)
	}
	if !strings.Contains(p.Stderr(), "nil pointer dereference") {
		t.Errorf("the stock server did not end with the known panic")
	}
	t.Logf("the stock server panicked after %d frames on %d connections, seed %d",
		c.sent.Load(), c.connections.Load(), c.seed)
}
