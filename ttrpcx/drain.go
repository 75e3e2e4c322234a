package ttrpcx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// endInputTimeout is the time, when Serve stops, for ttrpc to read what has arrived and to end its connections.
	endInputTimeout = 500 * time.Millisecond

	// stopTimeout is the time after ShutdownTimeout at which Serve returns, even if something hangs.
	stopTimeout = lastAnswersTimeout + 3*endInputTimeout/2
)

// drain ends all connections. Their open calls have ShutdownTimeout to finish.
func (s *serveRun) drain() error {
	s.setState(stateDraining)
	if n := s.calls(); n > 0 {
		s.options.Logger.Info("waiting for open calls", "calls", n, "timeout", s.options.ShutdownTimeout)
	}
	// First tell all connections, then wait for all. They stay open until the last one is done, to answer late calls.
	var drained []<-chan struct{}
	for _, c := range s.open() {
		drained = append(drained, c.Drain())
	}
	late := waitAll(drained, s.options.ShutdownTimeout)
	if late > 0 {
		what := fmt.Sprintf("answers to %d peers", late)
		if n := s.calls(); n > 0 {
			what = fmt.Sprintf("%d calls", n)
		}
		s.fail("%s were cut off after %v", what, s.options.ShutdownTimeout)
	}

	s.setState(stateClosing)
	if late == 0 {
		s.cancel() // ends handshakes
		s.answerLast()
	}
	var closed sync.WaitGroup
	for _, c := range s.open() {
		closed.Go(func() { _ = c.Close() }) // it may wait for the peer
	}
	closed.Wait()
	// Cancel the remaining handlers after the connections are closed. Otherwise clients would get the handlers'
	// Canceled, which looks as if the client had cancelled the call.
	s.cancel()
	s.pending.Wait()
	_ = s.server.Close()
	return s.stopError()
}

// fail notes what is wrong with the stop.
func (s *serveRun) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf(format, args...))
}

// stopError returns what is wrong with the stop so far, or nil.
func (s *serveRun) stopError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := s.failed
	if s.lost > 0 {
		failed = append(failed, fmt.Sprintf("%d peers did not take the last %d bytes", s.gone, s.lost))
	}
	if failed == nil {
		return nil
	}
	return errors.New("stop: " + strings.Join(failed, ", "))
}

// answerLast ends the input of all connections. ttrpc ends each connection when it has read the bytes that have
// arrived. On Linux, a peer on a unix socket cannot write any more then, so every call that it could send gets an
// answer. On TCP, a request that arrives after lastRequestsTimeout is lost.
func (s *serveRun) answerLast() {
	var ended []<-chan struct{}
	for _, c := range s.open() {
		endInput(c.inner)
		ended = append(ended, c.ended)
	}
	waitAll(ended, endInputTimeout)
}

// waitAll waits until all channels are closed or the timeout is over. It returns how many are not closed.
func waitAll(all []<-chan struct{}, timeout time.Duration) (late int) {
	timer, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for _, c := range all {
		select {
		case <-c:
			continue
		case <-timer.Done():
		}
		select {
		case <-c:
		default:
			late++
		}
	}
	return late
}
