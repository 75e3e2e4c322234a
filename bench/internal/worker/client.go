package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Window is what a client is asked to do.
type Window struct {
	Bytes   int           `json:"bytes"`   // payload of each message
	Callers int           `json:"callers"` // that send one request after the other
	Stream  bool          `json:"stream"`  // each on a stream of its own
	Rate    float64       `json:"rate"`    // requests a second that start whether others have ended or not; no Callers
	Time    time.Duration `json:"time"`    // within which requests start; 0 is one request for each caller
	Open    int           `json:"open"`    // only open so many further connections, and send one request on each
}

// Result is what came of it.
type Result struct {
	Calls       int             `json:"calls"`
	Time        time.Duration   `json:"time"`      // until the last answer
	Latencies   []time.Duration `json:"latencies"` // with Rate, of each call, from when it was meant to start
	Error       string          `json:"error"`
	Unsupported bool            `json:"unsupported"`
}

type client struct {
	contender Contender
	socket    string
	conns     []Conn // all calls are on the first one
}

// callerBits are the bits of an id that count a caller's requests.
const callerBits = 40

// Caller returns a number that all ids of one caller of one window have in common.
func Caller(id uint64) uint64 { return id >> callerBits }

func (c *client) run(ctx context.Context, w Window) (Result, error) {
	for len(c.conns) == 0 || w.Open > 0 {
		conn, err := c.contender.Dial(ctx, c.socket)
		if err != nil {
			return Result{}, err
		}
		if c.conns = append(c.conns, conn); w.Open > 0 {
			w.Open--
			if err := echo(ctx, conn, uint64(len(c.conns))<<callerBits, nil); err != nil {
				return Result{}, err
			}
		}
	}
	payload := make([]byte, w.Bytes)
	if w.Rate > 0 {
		return c.open(ctx, w, payload)
	}
	var (
		group sync.WaitGroup
		calls atomic.Int64
		first error
		once  sync.Once
	)
	start := time.Now()
	for i := range w.Callers {
		group.Go(func() {
			n, err := c.loop(ctx, w, uint64(i)<<callerBits, payload, start)
			calls.Add(int64(n))
			if err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	group.Wait()
	return Result{Calls: int(calls.Load()), Time: time.Since(start)}, first
}

// loop sends one request after the other.
func (c *client) loop(ctx context.Context, w Window, id uint64, payload []byte, start time.Time) (n int, err error) {
	call := func() error { return echo(ctx, c.conns[0], id, payload) }
	if w.Stream {
		s, err := c.conns[0].Stream(ctx)
		if err != nil {
			return 0, err
		}
		defer func() {
			if err == nil {
				err = s.CloseSend()
				_, _, _ = s.Recv() // the end of it
			}
		}()
		call = func() error {
			if err := s.Send(id, payload); err != nil {
				return err
			}
			return check(id, payload)(s.Recv())
		}
	}
	for {
		if err := call(); err != nil {
			return n, err
		}
		n, id = n+1, id+1
		if time.Since(start) >= w.Time {
			return n, nil
		}
	}
}

// open starts requests at random times, as many users who know nothing of each other do, and so does not wait for
// answers: a server that stalls would get fewer requests meanwhile, and its latencies would look better.
func (c *client) open(ctx context.Context, w Window, payload []byte) (Result, error) {
	runtime.LockOSThread() // sleeps are of threads, because the runtime's own can be a millisecond too long
	defer runtime.UnlockOSThread()
	var (
		group     sync.WaitGroup
		mu        sync.Mutex
		latencies = make([]time.Duration, 0, int(w.Rate*w.Time.Seconds()*2))
		first     error
	)
	start := time.Now()
	for at, i := time.Duration(0), uint64(1); at < w.Time; i++ {
		intended := at
		sleep(intended - time.Since(start))
		group.Go(func() {
			err := echo(ctx, c.conns[0], i<<callerBits, payload)
			took := time.Since(start) - intended
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, took)
			if err != nil {
				first = err
			}
		})
		at += time.Duration(rand.ExpFloat64() / w.Rate * float64(time.Second))
	}
	group.Wait()
	return Result{Calls: len(latencies), Time: time.Since(start), Latencies: latencies}, first
}

func echo(ctx context.Context, conn Conn, id uint64, payload []byte) error {
	return check(id, payload)(conn.Echo(ctx, id, payload))
}

// check returns a function that takes an answer and returns an error if it is not the one to the request.
func check(id uint64, payload []byte) func(gotID uint64, got []byte, err error) error {
	return func(gotID uint64, got []byte, err error) error {
		if err == nil && (gotID != id || len(got) != len(payload)) {
			err = fmt.Errorf("request %d with %d bytes got answer %d with %d", id, len(payload), gotID, len(got))
		}
		return err
	}
}
