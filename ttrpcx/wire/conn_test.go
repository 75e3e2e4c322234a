package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/net/nettest"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

func TestNettest(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"bytes":  func(c net.Conn) net.Conn { return NewConn(c, Options{}) },
		"frames": func(c net.Conn) net.Conn { return &framed{Conn: NewConn(c, Options{})} },
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				a, b := unixPair(t)
				a, b = wrap(a), wrap(b)
				return a, b, func() { _, _ = a.Close(), b.Close() }, nil
			})
		})
	}
}

// framed carries bytes in data frames, with one frame's header for each Write.
type framed struct {
	*Conn
	writeMu sync.Mutex
	rest    []byte // of a frame that a deadline has cut off

	readMu sync.Mutex
	head   []byte
	left   int
}

func (f *framed) Write(b []byte) (int, error) {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	if len(f.rest) > 0 {
		n, err := f.Conn.Write(f.rest)
		if f.rest = f.rest[n:]; err != nil {
			return 0, err
		}
	}
	frame := AppendFrame(nil, Header{StreamID: 1, Type: TypeData}, b)
	n, err := f.Conn.Write(frame)
	if n > 0 {
		f.rest = frame[n:]
	}
	if n == 0 || err == nil {
		return n - min(n, HeaderSize), err
	}
	return len(b), nil // the rest goes out before the next frame
}

func (f *framed) Read(p []byte) (int, error) {
	f.readMu.Lock()
	defer f.readMu.Unlock()
	for f.left == 0 {
		var b [HeaderSize]byte
		n, err := f.Conn.Read(b[:HeaderSize-len(f.head)])
		f.head = append(f.head, b[:n]...)
		if h, ok := ParseHeader(f.head); ok {
			f.head, f.left = nil, int(h.Length)
		}
		if err != nil {
			return 0, err
		}
	}
	n, err := f.Conn.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

// recorder is a connection whose writes are seen one by one, and go on only when asked to.
type recorder struct {
	net.Conn
	writes  chan []byte
	proceed chan error
	answers chan []byte
	expired chan struct{} // by the read deadline
	closed  chan struct{}
	once    sync.Once
}

func newRecorder() *recorder {
	return &recorder{
		writes:  make(chan []byte),
		proceed: make(chan error),
		answers: make(chan []byte, 1),
		expired: make(chan struct{}),
		closed:  make(chan struct{}),
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	select {
	case r.writes <- bytes.Clone(b):
	case <-r.closed:
		return 0, net.ErrClosed
	}
	select {
	case err := <-r.proceed:
		if err != nil {
			return 0, err
		}
		return len(b), nil
	case <-r.closed:
		return 0, net.ErrClosed
	}
}

func (r *recorder) Read(p []byte) (int, error) {
	select {
	case b := <-r.answers:
		return copy(p, b), nil
	case <-r.expired:
		return 0, os.ErrDeadlineExceeded
	case <-r.closed:
		return 0, net.ErrClosed
	}
}

func (r *recorder) SetReadDeadline(t time.Time) error {
	time.AfterFunc(time.Until(t), func() { close(r.expired) })
	return nil
}

func (r *recorder) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// request returns a request's frame with a payload of n bytes.
func request(id uint32, n int) []byte {
	return AppendFrame(nil, Header{StreamID: id, Type: TypeRequest}, make([]byte, n))
}

func TestGather(t *testing.T) {
	in := newRecorder()
	c := NewConn(in, Options{})
	write := func(b []byte) {
		t.Helper()
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Errorf("Write of %d bytes: got %d, %v", len(b), n, err)
		}
	}
	expect := func(want []byte) {
		t.Helper()
		got := <-in.writes
		if !bytes.Equal(got, want) {
			t.Fatalf("got a write of %d bytes, want %d", len(got), len(want))
		}
		in.proceed <- nil
	}

	// A single frame is written by its own Write.
	done := make(chan struct{})
	go func() {
		write(request(1, 5))
		close(done)
	}()
	got := <-in.writes
	select {
	case <-done:
		t.Fatal("Write returned before its frame was written")
	default:
	}
	// What comes meanwhile is queued, and goes out at once when the way is free.
	write(request(3, 10))
	write(request(5, 20))
	in.proceed <- nil
	<-done
	if !bytes.Equal(got, request(1, 5)) {
		t.Fatalf("got a first write of %d bytes", len(got))
	}
	expect(append(request(3, 10), request(5, 20)...))

	// The first piece of a long frame waits for the rest.
	long := request(7, 100<<10)
	write(long[:firstWrite])
	go write(long[firstWrite:])
	if got := <-in.writes; !bytes.Equal(got, long[:firstWrite]) {
		t.Fatalf("got a write of %d bytes, want the long frame's first piece", len(got))
	}
	in.proceed <- nil
	expect(long[firstWrite:])

	// Close sends what is queued.
	write(request(9, 1))
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	expect(request(9, 1))
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := c.Write(request(11, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newRecorder()
		c := NewConn(in, Options{})
		frames := 0
		done := make(chan error, 1)
		go func() {
			for id := uint32(1); ; id += 2 {
				if _, err := c.Write(request(id, 1000)); err != nil {
					done <- err
					return
				}
				frames++
			}
		}()
		// The first frames are written one by one, and then while one write is under way the queue fills.
		sent := 0
		for {
			b := <-in.writes
			synctest.Wait()
			if len(b) > len(request(1, 1000)) {
				break
			}
			sent++
			in.proceed <- nil
		}
		one := len(request(1, 1000))
		if held := (frames - sent) * one; held <= maxQueued-one || held > 2*maxQueued {
			t.Errorf("%d bytes are queued or under way, want 256 KiB or up to as much again", held)
		}
		lost := errors.New("lost")
		in.proceed <- lost
		if err := <-done; !errors.Is(err, lost) {
			t.Errorf("a waiting Write: got %v, want what befell the queue", err)
		}
		if _, err := c.Write(request(1, 1)); !errors.Is(err, lost) {
			t.Errorf("Write later: got %v", err)
		}
		// What the peer answered before it went away is read, and the end does not take long.
		answer := AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, nil)
		in.answers <- answer
		p := make([]byte, 100)
		if n, err := c.Read(p); err != nil || !bytes.Equal(p[:n], answer) {
			t.Errorf("Read after the loss: got %x, %v, want the answer", p[:n], err)
		}
		start := time.Now()
		if _, err := c.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) > time.Second {
			t.Errorf("Read after the answer: got %v after %v", err, time.Since(start))
		}
	})
}

func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := NewConn(near, Options{IOTimeout: time.Minute})
		start := time.Now()
		if _, err := c.Write(request(1, 10)); err == nil {
			t.Error("Write to a peer that does not read: no error")
		}
		if took := time.Since(start); took < time.Minute || took > 75*time.Second {
			t.Errorf("cut off after %v, want a minute and at most a quarter more", took)
		}
		if _, err := c.Write(request(3, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write later: got %v", err)
		}
	})
}

func TestSlowPeerIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewConn(near, Options{IOTimeout: time.Minute})
		defer func() { _ = c.Close() }()
		const frames = 10
		go func() {
			for i := range frames {
				if _, err := c.Write(request(uint32(2*i+1), 10)); err != nil {
					t.Error(err)
				}
			}
		}()
		// The first frames go out one by one and the others together, each within the time.
		for _, n := range []int{1, 1, 1, 1, frames - crowd} {
			time.Sleep(55 * time.Second)
			if _, err := io.ReadFull(far, make([]byte, n*(HeaderSize+10))); err != nil {
				t.Fatal(err)
			}
		}
		// Idleness does not count.
		time.Sleep(time.Hour)
		go func() { _, _ = c.Write(request(99, 1)) }()
		if _, err := io.ReadFull(far, make([]byte, HeaderSize+1)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseLingersAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := NewConn(near, Options{})
		go func() { _, _ = c.Write(request(1, 1)) }()
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != maxLinger {
			t.Errorf("Close took %v, want %v", took, maxLinger)
		}
	})
}

// A deadline that passes must not lose bytes that were queued before.
func TestDeadlineKeepsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewConn(near, Options{})
		defer func() { _ = c.Close() }()
		for id := range uint32(crowd) {
			go func() { _, _ = c.Write(request(2*id+1, 0)) }()
			if _, err := io.ReadFull(far, make([]byte, HeaderSize)); err != nil {
				t.Fatal(err)
			}
		}
		queued := [][]byte{request(11, 1), request(13, 2), request(15, 3)}
		want := bytes.Join(queued, nil)
		go func() {
			for _, b := range queued {
				if _, err := c.Write(b); err != nil {
					t.Error(err)
				}
			}
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(far, got[:15]); err != nil { // ends within the second frame
			t.Fatal(err)
		}
		synctest.Wait()
		if err := c.SetWriteDeadline(time.Now().Add(-1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, err := c.Write(request(17, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Write after the deadline: got %d, %v", n, err)
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, got[15:]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
	})
}

func TestHostileReaders(t *testing.T) {
	for name, hostile := range map[string]func(io.Reader) io.Reader{
		"one byte":         iotest.OneByteReader,
		"half":             iotest.HalfReader,
		"small pieces out": func(r io.Reader) io.Reader { return r },
	} {
		t.Run(name, func(t *testing.T) {
			c, s := unixPair(t)
			client := ttrpc.NewClient(NewConn(reading{c, hostile(c)}, Options{}))
			defer func() { _ = client.Close() }()
			guarded := NewGuard(GuardOptions{}).Wrap(reading{s, hostile(s)})
			var conn net.Conn = guarded
			if name == "small pieces out" {
				conn = reading{guarded, iotest.OneByteReader(guarded)}
			}
			serve(t, conn, &example{})
			api := testv1.NewTestClient(client)
			for _, size := range []int{0, 10, 5000, 40 << 10} {
				want := strings.Repeat("x", size)
				got, err := api.Unary(context.Background(), &testv1.UnaryRequest{Foo: want})
				if err != nil || got.Foo != want {
					t.Fatalf("Unary with %d bytes: got %d, %v", size, len(got.GetFoo()), err)
				}
			}
			if err := guarded.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// reading is a connection that is read through something else.
type reading struct {
	net.Conn
	r io.Reader
}

func (r reading) Read(p []byte) (int, error) { return r.r.Read(p) }

// Whatever cuts a stream off, no error but io.EOF may reach ttrpc.
func TestReadErrorsAreEOF(t *testing.T) {
	frame := AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest}, requestPayload(t, "s", "m", nil))
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, errors.New("tls")} {
		r := io.MultiReader(bytes.NewReader(frame), iotest.ErrReader(lost))
		c := NewGuard(GuardOptions{}).Wrap(reading{&replay{}, iotest.DataErrReader(r)})
		p := make([]byte, minRead)
		if n, err := c.Read(p); err != nil || !bytes.Equal(p[:n], frame) {
			t.Errorf("%v: first Read: got %d bytes, %v", lost, n, err)
		}
		for range 2 {
			if n, err := c.Read(p); n != 0 || err != io.EOF {
				t.Errorf("%v: later Read: got %d bytes, %v", lost, n, err)
			}
		}
		if err := c.Err(); err != nil {
			t.Errorf("a connection that was cut off was taken for a misdeed: %v", err)
		}
	}
}
