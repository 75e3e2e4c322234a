package cli

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	maxQueued   = 1 << 20         // bytes of lines that wait to be written
	maxLogWrite = 64 << 10        // bytes that are written with one call
	logPatience = 2 * time.Second // how long a full queue waits for a reader that takes nothing
)

// logQueue is standard error. At first, a write is a plain write. From start on, lines are queued, and a goroutine
// writes them in order, so that a pipe that nobody reads does not stop those that log. If the queue stays full, lines
// are lost, and a line says how many when there is a reader again.
type logQueue struct {
	file *os.File
	lost func(lines int) []byte // the line that says how many were lost; nil until start

	mu      sync.Mutex
	pending []byte
	dropped int
	stalled bool          // the reader took nothing for logPatience
	taken   chan struct{} // closed and made again when the reader has taken something
	idle    chan struct{} // nil, or closed when the goroutine has written all
}

// start begins to queue. From then on, a closed pipe is no reason to end, either: without Notify, Go ends a program
// whose standard error gets SIGPIPE.
func (q *logQueue) start(lost func(lines int) []byte) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	q.lost, q.taken = lost, make(chan struct{})
}

// Fd lets a program ask whether standard error is a terminal.
func (q *logQueue) Fd() uintptr { return q.file.Fd() }

// Write takes one line. Its error is always nil after start: a log that cannot be written is not the caller's problem.
func (q *logQueue) Write(line []byte) (int, error) {
	if q.lost == nil {
		return q.file.Write(line)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pending)+len(line) > maxQueued && !q.stalled {
		q.await()
	}
	if len(q.pending)+len(line) > maxQueued {
		q.dropped++
		return len(line), nil
	}
	q.pending = append(q.pending, line...)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.run()
	}
	return len(line), nil
}

// await waits until the reader has taken something, or until it is clear that it does not. It unlocks mu meanwhile.
func (q *logQueue) await() {
	taken := q.taken
	q.mu.Unlock()
	select {
	case <-taken:
	case <-time.After(logPatience):
	}
	q.mu.Lock()
	q.stalled = q.taken == taken
}

// run writes until nothing is pending.
func (q *logQueue) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pending) > 0 {
		lines := q.pending
		if q.dropped > 0 {
			lines = append(lines, q.lost(q.dropped)...)
		}
		q.pending, q.dropped = nil, 0
		q.mu.Unlock()
		for part := range slices.Chunk(lines, maxLogWrite) {
			_, _ = q.file.Write(part)
			q.mu.Lock()
			close(q.taken)
			q.stalled, q.taken = false, make(chan struct{})
			q.mu.Unlock()
		}
		q.mu.Lock()
	}
	close(q.idle)
	q.idle = nil
}

// flush waits until all lines are written, but at most as long as the timeout.
func (q *logQueue) flush(timeout time.Duration) {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-time.After(timeout):
	}
}
