//go:build unix

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// TestChaosKillsStock checks that the driver is dangerous: it makes a plain ttrpc server panic.
func TestChaosKillsStock(t *testing.T) {
	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	p := proctest.Start(t, stock("serve", path))
	p.WaitFor("serving")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	v := &victim{maxCalls: 64, blind: true}
	var group sync.WaitGroup
	for i := range uint64(8) {
		group.Go(func() {
			dial := func() (net.Conn, error) { return net.Dial("unix", path) }
			_ = breakRules(ctx, &peer{victim: v, rng: rand.New(rand.NewPCG(1, i)), dial: dial})
		})
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		t.Errorf("the stock server still runs after %d frames", v.sent.Load())
	}
	cancel()
	group.Wait()
	if code := p.ExitCode(); code != 2 {
		t.Errorf("exit code is %d, want 2 for a panic", code)
	}
	if !strings.Contains(p.Stderr(), "nil pointer dereference") {
		t.Errorf("the stock server did not end with the known panic")
	}
	t.Logf("the stock server panicked after %d frames on %d connections", v.sent.Load(), v.connections.Load())
}

const testServiceName = "test.v1.Test"

// victim is a server under attack, and what its attackers have seen of it.
type victim struct {
	maxCalls int // the server's limit for calls on one connection

	// blind makes sessions ignore answers, for a server that does not keep the rules.
	blind bool

	// unfair tells that attackers are the same user as those who keep the rules, and may take all that a user may have.
	unfair bool

	// epoch is odd while the server starts or stops. Answers are only judged if they come in the even epoch in which
	// they were asked for.
	epoch atomic.Int64

	connections, sent, answered, cutOff atomic.Int64
}

// judged reports whether the server owes answers and has not stopped since the epoch.
func (v *victim) judged(since int64) bool {
	return !v.unfair && since%2 == 0 && v.epoch.Load() == since
}

// peer is one attacker. The bytes that it sends depend on its random numbers, and in some attacks on the server's
// answers. The order in which the server gets the bytes of several peers does not.
type peer struct {
	*victim
	rng *rand.Rand

	dial  func() (net.Conn, error)
	knock func() (net.Conn, error) // as dial, but without permission where the server asks for it
}

// breakRules plays one session after another until ctx ends. Each makes valid calls of all kinds, which must get the
// right answers. It ends with a frame that breaks a rule, with garbage, or with a lost connection.
func breakRules(ctx context.Context, p *peer) error {
	for number := 1; ctx.Err() == nil; number++ {
		s := &session{peer: p, next: 1}
		since := p.epoch.Load()
		if err := s.run(ctx); err != nil && ctx.Err() == nil && p.judged(since) {
			return fmt.Errorf("session %d: %s: %w", number, strings.Join(s.done, ", "), err)
		} else if err != nil {
			rest(ctx, time.Millisecond)
		}
	}
	return nil
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// goodClient is ttrpc's own client, which keeps the rules.
type goodClient struct {
	*ttrpc.Client
	calls atomic.Int64
}

func newGoodClient(path string) (*goodClient, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &goodClient{Client: ttrpc.NewClient(conn)}, nil
}

func (g *goodClient) close() { _ = g.Close() }

// call makes a call and checks its answer.
func (g *goodClient) call() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	want := fmt.Sprint("good ", g.calls.Add(1))
	got, err := testv1.NewTestClient(g.Client).Unary(ctx, &testv1.UnaryRequest{Foo: want})
	if err != nil || got.GetFoo() != want {
		return fmt.Errorf("the good client got %v, %w, want %q", got, err, want)
	}
	return nil
}

// frame is a frame to send. Its Length is set from the payload.
type frame struct {
	wire.Header
	payload []byte
}

// op is a valid operation of a connection: the frames of one stream. Frames without a stream id get the op's id.
type op struct {
	name   string
	frames []frame
	id     uint32

	// met reports whether all answers have arrived, and returns an error if one is wrong.
	met func(got []frame) (bool, error)
}

// session is one connection.
type session struct {
	*peer
	conn   net.Conn
	next   uint32   // lowest stream id that may be used
	ended  []uint32 // ids of streams that both ends have closed
	done   []string // names of the operations so far, for the report
	opened uint32   // highest id that was used

	mu      sync.Mutex
	changed chan struct{} // each answer, and the end, closes it and makes a new one
	answers map[uint32][]frame
	end     error // with which reading has ended
}

var errWrong = errors.New("wrong answer")

func (s *session) run(ctx context.Context) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	read := s.start(conn)
	defer func() {
		_ = conn.Close()
		<-read
	}()

	for range s.rng.IntN(4) {
		if err := s.burst(s.rng.IntN(12)); err != nil {
			return err
		}
	}
	ending := s.ending()
	s.done = append(s.done, ending.name)
	return ending.do(s)
}

// start reads the answers until the connection ends. Then it closes the channel that it returns.
func (s *session) start(conn net.Conn) <-chan struct{} {
	s.connections.Add(1)
	s.conn = conn
	s.changed = make(chan struct{})
	s.answers = map[uint32][]frame{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.read()
	}()
	return read
}

// closeWrite ends the session's side of the connection.
func (s *session) closeWrite() { _ = s.conn.(interface{ CloseWrite() error }).CloseWrite() }

// read collects the frames that the server sends.
func (s *session) read() {
	r := bufio.NewReader(s.conn)
	for {
		f, err := readFrame(r)
		s.mu.Lock()
		if err != nil {
			s.end = err
		} else {
			s.answers[f.StreamID] = append(s.answers[f.StreamID], f)
		}
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func readFrame(r io.Reader) (frame, error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	h, _ := wire.ParseHeader(head[:])
	if h.Length > wire.MaxPayload {
		return frame{}, fmt.Errorf("%w: frame of %d bytes", errWrong, h.Length)
	}
	f := frame{h, make([]byte, h.Length)}
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// await waits until the condition is met. The condition is called with the lock held. end is the error with which the
// connection has ended, or nil if it is open.
func (s *session) await(what string, met func(end error) (bool, error)) error {
	if s.blind {
		return nil
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		ok, err := met(s.end)
		changed, end := s.changed, s.end
		s.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case ok:
			return nil
		case end != nil:
			return fmt.Errorf("%s: the connection ended: %w", what, end)
		}
		select {
		case <-changed:
		case <-timeout.C:
			return fmt.Errorf("%s: it hangs", what)
		}
	}
}

// answer waits for all answers to o.
func (s *session) answer(o *op) error {
	err := s.await(o.name, func(error) (bool, error) { return o.met(s.answers[o.id]) })
	if err == nil {
		s.answered.Add(1)
		s.ended = append(s.ended, o.id)
	}
	return err
}

// cut waits until the server closes the connection.
func (s *session) cut() error {
	err := s.await("wait to be cut off", func(end error) (bool, error) {
		if errors.Is(end, errWrong) {
			return false, end
		}
		return end != nil, nil
	})
	if err == nil {
		s.cutOff.Add(1)
	}
	return err
}

// cutOrServed waits until the server closes the connection or answers another call. Both are right after a frame whose
// effect depends on what the server does first.
func (s *session) cutOrServed() error {
	probe := s.unary()
	s.identify(probe)
	s.send(probe.frames...)
	cut := false
	err := s.await("wait to be cut off or served", func(end error) (bool, error) {
		if ok, err := probe.met(s.answers[probe.id]); ok || err != nil {
			return ok, err
		}
		cut = end != nil
		return cut, nil
	})
	if cut {
		s.cutOff.Add(1)
	}
	return err
}

// identify gives o the next stream id.
func (s *session) identify(o *op) {
	o.id = s.next
	s.opened = s.next
	s.next += 2
	for i := range o.frames {
		if o.frames[i].StreamID == 0 {
			o.frames[i].StreamID = o.id
		}
	}
}

// burst does n operations at once and waits for all answers.
func (s *session) burst(n int) error {
	var ops []*op
	for range n {
		ops = append(ops, s.legal())
	}
	return s.do(ops...)
}

// do sends the frames of the operations and waits for all answers. The frames of one operation keep their order, with
// frames of the others between them.
func (s *session) do(ops ...*op) error {
	left := append([]*op(nil), ops...)
	rest := map[*op][]frame{}
	var mixed []frame
	for len(left) > 0 {
		i := s.rng.IntN(len(left))
		o := left[i]
		if o.id == 0 {
			s.identify(o)
			s.done = append(s.done, o.name)
			rest[o] = o.frames
		}
		if len(rest[o]) == 0 {
			left[i] = left[len(left)-1]
			left = left[:len(left)-1]
			continue
		}
		mixed = append(mixed, rest[o][0])
		rest[o] = rest[o][1:]
	}
	s.send(mixed...)
	for _, o := range ops {
		if err := s.answer(o); err != nil {
			return err
		}
	}
	return nil
}

// send sends whole frames.
func (s *session) send(frames ...frame) {
	var b []byte
	for _, f := range frames {
		b = wire.AppendFrame(b, f.Header, f.payload)
	}
	s.sent.Add(int64(len(frames)))
	s.write(b)
}

// write sends bytes: in one piece, or in a few, or one by one. It ignores errors, because read notices them, too.
func (s *session) write(b []byte) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	switch pieces := s.rng.IntN(8); {
	case pieces == 0 && len(b) < 300:
		for i := range b {
			_, _ = s.conn.Write(b[i : i+1])
		}
	case pieces < 4:
		for len(b) > 0 {
			n := 1 + s.rng.IntN(len(b))
			_, _ = s.conn.Write(b[:n])
			b = b[n:]
		}
	default:
		_, _ = s.conn.Write(b)
	}
}
