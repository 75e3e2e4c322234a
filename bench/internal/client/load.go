package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/ttrpc-starter/bench/result"
)

// underWay is how many messages of a stream are under way.
const underWay = 32

const callerShift = 40

// Caller returns which of the concurrent callers the message with this id is from.
func Caller(id uint64) uint64 { return id >> callerShift }

// run puts a load on conn for a time. It lets the calls that are open at its end finish and counts them.
func run(ctx context.Context, conn Conn, c result.Case, d time.Duration) (result.Round, error) {
	payload := make([]byte, c.Payload)
	for i := range payload {
		payload[i] = 'a' + byte(i%26) // text, because some contenders send it as a string
	}
	l := &load{conn: conn, payload: payload, latencies: hdrhistogram.New(1, int64(time.Minute), 3)}
	caller := l.unary
	if c.Kind == "stream" {
		caller = l.stream
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	errs := make([]error, c.Callers)
	start := time.Now()
	l.end = start.Add(d)
	for i := range c.Callers {
		group.Go(func() {
			if errs[i] = caller(ctx, uint64(i)<<callerShift); errs[i] != nil {
				l.failed.Store(true)
			}
		})
	}
	group.Wait()
	seconds := time.Since(start).Seconds()
	if err := errors.Join(errs...); err != nil {
		return result.Round{}, first(errs)
	}
	if l.latencies.TotalCount() == 0 {
		return result.Round{}, errors.New("no call was answered")
	}
	at := func(percentile float64) time.Duration {
		return time.Duration(l.latencies.ValueAtPercentile(percentile))
	}
	return result.Round{
		Calls: l.latencies.TotalCount(), Seconds: seconds, P50: at(50), P99: at(99), P999: at(99.9),
	}, nil
}

// first returns the first error: the other callers' say the same.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// load is one run.
type load struct {
	conn    Conn
	payload []byte
	end     time.Time
	failed  atomic.Bool // some caller has: the others can stop

	// One histogram for all, because one for each caller would be so much heap that it kept the collector away.
	mu        sync.Mutex
	latencies *hdrhistogram.Histogram
}

// took records how long a call took and reports whether there is time for another one.
func (l *load) took(since, now time.Time) (bool, error) {
	l.mu.Lock()
	err := l.latencies.RecordValue(int64(now.Sub(since)))
	l.mu.Unlock()
	return now.Before(l.end) && !l.failed.Load(), err
}

func (l *load) unary(ctx context.Context, id uint64) error {
	start := time.Now()
	for n, more := uint64(0), true; more; n++ {
		err := echo(ctx, l.conn, id+n, l.payload, n == 0)
		if err != nil {
			return err
		}
		now := time.Now()
		if more, err = l.took(start, now); err != nil {
			return err
		}
		start = now
	}
	return nil
}

// echo makes a call and checks what comes back; all of it if thorough.
func echo(ctx context.Context, conn Conn, id uint64, payload []byte, thorough bool) error {
	got, back, err := conn.Echo(ctx, id, payload)
	if err != nil {
		return err
	}
	return check(got, id, back, payload, thorough)
}

func check(got, want uint64, back, payload []byte, thorough bool) error {
	switch {
	case got != want:
		return fmt.Errorf("the answer is to message %d, not to %d", got, want)
	case len(back) != len(payload):
		return fmt.Errorf("%d bytes came back, not %d", len(back), len(payload))
	case thorough && !bytes.Equal(back, payload):
		return errors.New("other bytes came back than were sent")
	}
	return nil
}

func (l *load) stream(ctx context.Context, id uint64) error {
	stream, err := l.conn.Stream(ctx)
	if err != nil {
		return err
	}
	var sent [underWay]time.Time // when; a ring
	room := make(chan struct{}, underWay)
	stop := make(chan struct{})
	sending := make(chan error, 1)
	go func() {
		for n := uint64(0); ; n++ {
			select {
			case room <- struct{}{}:
			case <-stop:
				sending <- stream.CloseSend()
				return
			}
			sent[n%underWay] = time.Now()
			if err := stream.Send(id+n, l.payload); err != nil {
				sending <- err
				return
			}
		}
	}()
	stopped := false
	for n := uint64(0); ; n++ {
		got, back, err := stream.Recv()
		if errors.Is(err, io.EOF) && stopped {
			return <-sending
		}
		if err != nil {
			return fmt.Errorf("message %d of a stream: %w", n, err)
		}
		if err := check(got, id+n, back, l.payload, n == 0); err != nil {
			return err
		}
		more, err := l.took(sent[n%underWay], time.Now())
		if err != nil {
			return err
		}
		if !more && !stopped {
			stopped = true
			close(stop)
		}
		<-room
	}
}
