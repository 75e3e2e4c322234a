//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// fate is what the caller knows of a message that it sent.
type fate int

const (
	answered fate = iota // it ran once
	mayHaveRun
	notRun
)

// ledger has the fate of each message of the callers that keep the rules, and how they were served.
type ledger struct {
	victim *victim
	large  sync.Mutex // held during a call with large messages: together, they could be more than a user may hold

	mu     sync.Mutex
	fates  map[string]fate // by the message's name, which the server records when it runs
	counts [notRun + 1]int
	worst  [len(sizes)]time.Duration // from a call to its answer, while the server served
	wrong  []error
}

// sizes are those of the messages.
var sizes = [...]int{10, 64 << 10, 1 << 20}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, err)
}

// note takes down what became of messages that were sent together.
func (l *ledger) note(err error, names ...string) {
	f, text := answered, status.Convert(err).Message()
	switch {
	case err == nil:
	case strings.Contains(text, "was not sent"), strings.Contains(text, "server is shutting down"):
		f = notRun
	default:
		f = mayHaveRun
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		l.fates[name] = f
		l.counts[f]++
	}
}

// caller makes calls one after another, each with a name of its own.
type caller struct {
	*ledger
	name   string
	rng    *rand.Rand
	client func() (testv1.TestClient, error)
	calls  int

	mu       sync.Mutex
	servedIn int64 // the last epoch in which it had an answer
}

// run makes calls until ctx ends. Then it waits for the last answer.
func (c *caller) run(ctx context.Context) {
	for ctx.Err() == nil {
		client, err := c.client()
		if err == nil {
			c.call(client)
		}
		rest(ctx, time.Duration(c.rng.IntN(20))*time.Millisecond)
	}
}

// call makes a call of any kind and judges its result.
func (c *caller) call(client testv1.TestClient) {
	size := c.rng.IntN(len(sizes))
	kind := oneOf(c.rng, c.unary, c.unary, c.echo, c.join)
	if size == len(sizes)-1 {
		c.large.Lock()
		defer c.large.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	since, start := c.victim.epoch.Load(), time.Now()
	messages, err := kind(ctx, client, strings.Repeat("x", sizes[size]))
	took := time.Since(start)
	code := status.Code(interceptor.StatusError(err))
	if errors.Is(err, errWrong) || err != nil && code != codes.Unavailable && !c.victim.unfair {
		c.fail(fmt.Errorf("%s, call %d: %w", c.name, c.calls, err))
	}
	if !c.victim.judged(since) {
		return
	}
	c.mu.Lock()
	first := c.servedIn != since
	if err == nil {
		c.servedIn = since
	}
	c.mu.Unlock()
	switch {
	case first: // it may be about the server before
	case err != nil:
		c.fail(fmt.Errorf("%s, call %d, while the server ran: %w", c.name, c.calls, err))
	default:
		took /= time.Duration(messages)
		c.ledger.mu.Lock()
		c.worst[size] = max(c.worst[size], took)
		c.ledger.mu.Unlock()
	}
}

// served reports whether the caller has had an answer in the epoch.
func (c *caller) served(epoch int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servedIn == epoch
}

func (c *caller) text(filler string) (name, text string) {
	c.calls++
	name = fmt.Sprintf("#%s.%d", c.name, c.calls)
	return name, name + " " + filler
}

func (c *caller) unary(ctx context.Context, client testv1.TestClient, filler string) (int, error) {
	name, text := c.text("")
	got, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: text, Bar: filler})
	c.note(err, name)
	if err == nil && (got.GetFoo() != text || got.GetBar() != filler) {
		err = fmt.Errorf("%w: %.40q to %q", errWrong, got.GetFoo(), text)
	}
	return 1, err
}

// echo sends messages and gets each back before it sends the next one.
func (c *caller) echo(ctx context.Context, client testv1.TestClient, filler string) (int, error) {
	stream, err := client.Echo(ctx)
	n := 1 + c.rng.IntN(5)
	for range n {
		if err != nil {
			return n, err
		}
		name, text := c.text(filler)
		var got *testv1.EchoResponse
		if err = stream.Send(&testv1.EchoRequest{Message: text}); err == nil {
			got, err = stream.Recv()
		}
		c.note(err, name)
		if err == nil && got.GetMessage() != text {
			return n, fmt.Errorf("%w: %.40q to %q", errWrong, got.GetMessage(), name)
		}
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return n, err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return n, err
	}
	return n, nil
}

// join sends messages and gets one answer to all.
func (c *caller) join(ctx context.Context, client testv1.TestClient, filler string) (int, error) {
	stream, err := client.Join(ctx)
	if err != nil {
		return 1, err
	}
	var names, texts []string
	for range 1 + c.rng.IntN(3) {
		name, text := c.text(filler)
		names, texts = append(names, name), append(texts, text)
		if err = stream.Send(&testv1.JoinRequest{Word: text}); err != nil {
			break
		}
	}
	var got *testv1.JoinResponse
	if err == nil {
		got, err = stream.CloseAndRecv()
	}
	c.note(err, names...)
	if err == nil && got.GetText() != strings.Join(texts, " ") {
		err = fmt.Errorf("%w: %.40q to %q", errWrong, got.GetText(), names)
	}
	return len(names), err
}

// stockClient makes a client of ttrpc's own, and another one when its connection has ended.
func stockClient(dial func() (net.Conn, error)) (get func() (testv1.TestClient, error), end func()) {
	var client *ttrpc.Client
	var closed atomic.Bool
	end = func() {
		if client != nil {
			_ = client.Close()
		}
	}
	return func() (testv1.TestClient, error) {
		if client == nil || closed.Load() {
			end()
			conn, err := dial()
			if err != nil {
				return nil, err
			}
			closed.Store(false)
			client = ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { closed.Store(true) }))
		}
		return testv1.NewTestClient(client), nil
	}, end
}

// wantDelivered compares what the callers know with what ran: the files that servers have written with -record. clean
// has those whose servers exited with 0, so all that ran there was answered.
func (l *ledger) wantDelivered(t testing.TB, records []string, clean map[string]bool) {
	t.Helper()
	ran := map[string]int{}
	for _, file := range records {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.Lines(string(text)) {
			name = strings.TrimSuffix(name, "\n")
			ran[name]++
			if f, ok := l.fates[name]; clean[file] && f != answered || !ok {
				t.Errorf("%s ran in a server that exited with 0, but its caller knows %v, %v", name, f, ok)
			}
		}
	}
	for name, f := range l.fates {
		if n := ran[name]; n > 1 || n == 0 && f == answered || n == 1 && f == notRun {
			t.Errorf("%s ran %d times, but its caller knows %v", name, n, f)
		}
	}
}
