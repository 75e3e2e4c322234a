//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
)

// patience is how long a test waits for an event before it fails. It is long because machines may be slow and shared.
const patience = time.Minute

// watched is a server that a test observes: calls in its log, descriptors and memory in /proc, and at its end
// goroutines by their stacks.
type watched struct {
	*proctest.Process
	path string // of its socket

	mu      sync.Mutex
	changed chan struct{} // each change of logged closes it and makes a new one
	logged  map[string]int
}

// startWatched starts a server and waits until it listens. It counts the log lines of calls and connections, and does
// not keep them.
func startWatched(t testing.TB, address string, args ...string) *watched {
	t.Helper()
	w := &watched{
		path:    strings.TrimPrefix(address, "unix://"),
		changed: make(chan struct{}),
		logged:  map[string]int{},
	}
	args = append([]string{"-address", address, "-max-log-lines", "-1"}, args...)
	w.Process = proctest.StartFiltered(t, server(args...), w.keep)
	w.WaitFor("server start")
	return w
}

// Messages in the server's log that are counted.
const (
	logUnary   = "unary call"
	logSplit   = "split call"
	logJoin    = "join call"
	logEcho    = "echo call"
	logEnd     = "call served"
	logClosed  = "connection closed"
	logRefused = "connection refused"
)

var counted = []string{logUnary, logSplit, logJoin, logEcho, logEnd, logClosed, logRefused}

// keep counts a line of standard error. It returns true for lines that are not counted, or that the server limits.
func (w *watched) keep(line []byte) bool {
	const prefix = len("15:04:05.000 INFO  ")
	if len(line) < prefix {
		return true
	}
	for _, message := range counted {
		if bytes.HasPrefix(line[prefix:], []byte(message)) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.logged[message]++
			close(w.changed)
			w.changed = make(chan struct{})
			return message == logClosed || message == logRefused
		}
	}
	return true
}

// until waits for a condition. It calls condition with the lock held: when a count changes, and a hundred times a
// second, because not everything is logged.
func (w *watched) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	timeout := time.After(patience)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		w.mu.Lock()
		met, changed := condition(), w.changed
		w.mu.Unlock()
		if met {
			return
		}
		select {
		case <-changed:
		case <-poll.C:
		case <-w.Ended():
			t.Fatalf("the server ended before %s", what)
		case <-timeout:
			t.Fatalf("timeout before %s", what)
		}
	}
}

// count returns how often the message was logged.
func (w *watched) count(message string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logged[message]
}

// goroutines ends the server with SIGQUIT, on which Go prints the stacks of all goroutines. It returns those that wait
// for something and are not the runtime's. A goroutine that runs, or closes a descriptor, may be about to end.
func (w *watched) goroutines(t testing.TB) []string {
	t.Helper()
	w.Signal(syscall.SIGQUIT)
	if code := w.ExitCode(); code != 2 {
		t.Errorf("exit code after SIGQUIT is %d, want 2", code)
	}
	_, dump, ok := strings.Cut(w.Stderr(), "SIGQUIT: quit\n")
	if !ok {
		t.Fatal("the server printed no stacks")
	}
	var waiting []string
	for stack := range strings.SplitSeq(dump, "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if strings.HasPrefix(head, "goroutine ") && !strings.HasPrefix(head, "goroutine 0 ") &&
			!strings.Contains(head, "[run") && !strings.Contains(head, "[syscall") &&
			!strings.Contains(stack, "\ncreated by runtime.") {
			waiting = append(waiting, stack)
		}
	}
	return waiting
}

// wantServed fails the test if a correct client gets no answer on a new connection.
func (w *watched) wantServed(t testing.TB) {
	t.Helper()
	good, err := newGoodClient(w.path)
	if err == nil {
		defer good.close()
		err = good.call()
	}
	if err != nil {
		t.Error(err)
	}
}

// wantNoRace fails the test if the server's race detector has found something.
func (w *watched) wantNoRace(t testing.TB) {
	t.Helper()
	if strings.Contains(w.Stderr(), "DATA RACE") {
		t.Errorf("the server has a data race")
	}
}

// stop ends the server with SIGTERM. It fails the test unless the server ends with success.
func (w *watched) stop(t testing.TB) {
	t.Helper()
	w.Signal(syscall.SIGTERM)
	if code := w.ExitCode(); code != 0 {
		t.Errorf("exit code after SIGTERM is %d, want 0", code)
	}
	w.wantNoRace(t)
}

// descriptors returns the number of the server's open descriptors, or 0 on platforms without /proc.
func (w *watched) descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Process.Process.Pid))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(open)
}

// memory returns a number of bytes from /proc/PID/status, such as VmRSS or its peak, VmHWM.
func (w *watched) memory(t testing.TB, name string) int64 {
	t.Helper()
	n, ok := w.status(name)
	if !ok {
		t.Fatalf("no %s of the server", name)
	}
	return n
}

func (w *watched) status(name string) (n int64, ok bool) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Process.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// limitMemory kills the server before the machine suffers.
func (w *watched) limitMemory(limit int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.Ended():
			return
		case <-tick.C:
			if rss, _ := w.status("VmRSS"); rss > limit {
				_ = w.Process.Process.Kill()
			}
		}
	}
}
