// Package client is what the contenders' clients have in common: the loads, and the runner's commands.
package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

// Conn is how a contender makes calls. Echo, Stream and Hold may be called concurrently. They return an error that is
// errors.ErrUnsupported for what the contender does not have.
type Conn interface {
	// Echo makes a call and returns what came back, which stays as it is until the same Caller calls again.
	Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error)
	// Stream opens a stream that echoes.
	Stream(ctx context.Context) (Stream, error)
	// Hold makes a call that waits until the server releases it.
	Hold(ctx context.Context) error
	Close() error
}

// Stream is a bidirectional stream. Send and Recv may be called concurrently.
type Stream interface {
	Send(id uint64, payload []byte) error
	Recv() (uint64, []byte, error)
	// CloseSend ends what is sent; Recv returns io.EOF once all has come back.
	CloseSend() error
}

// Dial connects to a contender's server. All calls go over one connection if the contender can do that.
type Dial func(ctx context.Context, e endpoint.Endpoint) (Conn, error)

// Main is the main function of a contender's client.
func Main(dial Dial) {
	control.Start()
	c := &client{dial: dial}
	control.Answers(func(command control.Command) control.Answer {
		a, err := c.do(context.Background(), command)
		if err != nil {
			a.Error, a.Unsupported = err.Error(), errors.Is(err, errors.ErrUnsupported)
		}
		return a
	})
}

// client is a process's state between commands.
type client struct {
	dial  Dial
	conns []Conn
	held  chan error // one for each Hold call that is under way or over
	calls int        // how many there are
}

func (c *client) do(ctx context.Context, command control.Command) (a control.Answer, err error) {
	switch command.Do {
	case control.Nothing:
		return a, nil
	case control.First:
		return a, c.first(ctx, command.Endpoint)
	case control.Load:
		if err := c.open(ctx, command.Endpoint, 1); err != nil {
			return a, err
		}
		before := control.UsageNow()
		a.Round, err = run(ctx, c.conns[0], command.Case, command.Time)
		a.Round.Client = control.Since(before, control.UsageNow())
		return a, err
	case control.Open:
		return a, c.open(ctx, command.Endpoint, command.Count)
	case control.Hold:
		return a, c.hold(ctx, command.Endpoint, command.Count)
	case control.Finish:
		return c.finish()
	default:
		return a, fmt.Errorf("a client does not know the command %q", command.Do)
	}
}

// first tries again until the server listens, so the time that passes is the server's.
func (c *client) first(ctx context.Context, e endpoint.Endpoint) error {
	for {
		probe, err := e.DialPlain(ctx)
		if err == nil {
			_ = probe.Close()
			break
		}
		time.Sleep(100 * time.Microsecond) // the runner ends the process if it takes too long
	}
	conn, err := c.dial(ctx, e)
	if err != nil {
		return err
	}
	return errors.Join(echo(ctx, conn, 1, nil, true), conn.Close())
}

// dials is how many connections are made at once: some systems refuse what waits beyond a short queue.
const dials = 16

// open has n connections in all, each of which has made a call.
func (c *client) open(ctx context.Context, e endpoint.Endpoint, n int) error {
	var (
		mu     sync.Mutex
		failed error
		group  sync.WaitGroup
	)
	todo := make(chan struct{}, n)
	for range n - len(c.conns) {
		todo <- struct{}{}
	}
	close(todo)
	for range dials {
		group.Go(func() {
			for range todo {
				conn, err := c.dial(ctx, e)
				if err == nil {
					err = echo(ctx, conn, 1, nil, true)
				}
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("connection %d of %d: %w%s", len(c.conns)+1, n, err, hint(err))
					mu.Unlock()
					return
				}
				c.conns = append(c.conns, conn)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed
}

func hint(err error) string {
	if errors.Is(err, syscall.EMFILE) {
		return " (the limit of open files is too low: see ulimit -n)"
	}
	return ""
}

func (c *client) hold(ctx context.Context, e endpoint.Endpoint, n int) error {
	if err := c.open(ctx, e, 1); err != nil {
		return err
	}
	c.held, c.calls = make(chan error, n), n
	for range n {
		go func() { c.held <- c.conns[0].Hold(ctx) }()
	}
	select {
	case err := <-c.held: // nothing has been released: the contender cannot do it
		return err
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func (c *client) finish() (a control.Answer, err error) {
	for range c.calls {
		if failed := <-c.held; failed != nil {
			err = failed
		} else {
			a.Count++
		}
	}
	return a, err
}

// OneCall is why the contender cannot Hold, which is about many calls on one connection.
func OneCall(contender string) error {
	return fmt.Errorf("%w: a connection of %s takes one call at a time", errors.ErrUnsupported, contender)
}
