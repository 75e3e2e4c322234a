package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

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

func (r *recorder) LocalAddr() net.Addr  { return new(net.UnixAddr) }
func (r *recorder) RemoteAddr() net.Addr { return new(net.UnixAddr) }

func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// request returns a request's frame with a payload of n bytes.
func request(id uint32, n int) []byte {
	return AppendFrame(nil, Header{StreamID: id, Type: TypeRequest}, make([]byte, n))
}

func TestGather(t *testing.T) {
	in := newRecorder()
	c := newClientConn(t, in, ClientOptions{})
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
	write(long[:ttrpcBuffer])
	go write(long[ttrpcBuffer:])
	if got := <-in.writes; !bytes.Equal(got, long[:ttrpcBuffer]) {
		t.Fatalf("got a write of %d bytes, want the long frame's first piece", len(got))
	}
	in.proceed <- nil
	expect(long[ttrpcBuffer:])

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

// While the server takes nothing, a bounded number of bytes is queued. What was not taken when the connection broke was
// not sent, and what was taken may have run, but for what the server has answered before it went away.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newRecorder()
		c := newClientConn(t, in, ClientOptions{})
		frames, stop := 0, false
		done := make(chan struct{})
		go func() {
			defer close(done)
			for id := uint32(1); !stop; id += 2 {
				if _, err := c.Write(request(id, 1000)); err != nil {
					t.Error(err)
				}
				frames++
			}
		}()
		// The first frame is written alone. Meanwhile the queue fills, and is written in pieces.
		taken := 0
		for pieces := 0; ; {
			b := <-in.writes
			synctest.Wait()
			if len(b) == maxPiece {
				pieces++
			}
			if pieces == 2 {
				break
			}
			taken += len(b)
			in.proceed <- nil
		}
		one := len(request(1, 1000))
		sent := taken / one
		if held := (frames - sent) * one; held <= maxQueued-one || held > 2*maxQueued {
			t.Errorf("%d bytes are queued or under way, want 256 KiB or up to as much again", held)
		}
		stop = true
		in.proceed <- errors.New("lost")
		<-done
		in.answers <- AppendFrame(nil, Header{StreamID: 1, Type: TypeResponse}, []byte("answer"))
		if h, payload := readFrame(t, c); h.StreamID != 1 || string(payload) != "answer" {
			t.Errorf("got %+v, %q, want the server's answer", h, payload)
		}
		start := time.Now()
		for range sent - 1 {
			h, payload := readFrame(t, c)
			if int(h.StreamID) >= 2*sent || !bytes.Contains(payload, []byte(mayHaveRun)) {
				t.Errorf("got %+v, %q", h, payload)
			}
		}
		if took := time.Since(start); took != linger {
			t.Errorf("the connection was given up after %v, want %v", took, linger)
		}
		for range frames - sent {
			if _, payload := readFrame(t, c); !bytes.Contains(payload, []byte(notSent)) {
				t.Errorf("a call that was not sent got %q", payload)
			}
		}
	})
}

func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := newClientConn(t, near, ClientOptions{IOTimeout: time.Minute})
		start := time.Now()
		if _, err := c.Write(request(1, 10)); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < time.Minute || took > 75*time.Second {
			t.Errorf("cut off after %v, want a minute and at most a quarter more", took)
		}
		wantAnswer(t, c, 1, notSent)
	})
}

func TestSlowPeerIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := newClientConn(t, near, ClientOptions{IOTimeout: time.Minute})
		defer func() { _ = c.Close() }()
		const frames = 10
		go func() {
			for i := range frames {
				if _, err := c.Write(request(uint32(2*i+1), 10)); err != nil {
					t.Error(err)
				}
			}
		}()
		// The first frame goes out alone and the others together, each within the time.
		for _, n := range []int{1, frames - 1} {
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

// slowly reads n bytes from r at 20 KB/s.
func slowly(t *testing.T, r io.Reader, n int) {
	t.Helper()
	for b := make([]byte, 2000); n > 0; n -= len(b) {
		time.Sleep(100 * time.Millisecond)
		if _, err := io.ReadFull(r, b[:min(n, len(b))]); err != nil {
			t.Fatalf("%d bytes before the end: %v", n, err)
		}
	}
}

// A peer that takes a long frame slowly is not cut off, and one that stops in the middle is, on either side.
func TestTimeoutCountsBytes(t *testing.T) {
	const timeout = 10 * time.Second // a hundredth of what the frames take
	sides := map[string]func(*testing.T, net.Conn) net.Conn{
		"client": func(t *testing.T, c net.Conn) net.Conn {
			return newClientConn(t, c, ClientOptions{IOTimeout: timeout})
		},
		"guard": func(_ *testing.T, c net.Conn) net.Conn {
			return NewGuard(GuardOptions{IOTimeout: timeout}).Wrap(c, "")
		},
	}
	for name, wrap := range sides {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				c := wrap(t, near)
				long := request(1, MaxPayload)
				wrote := make(chan struct{})
				go func() {
					defer close(wrote)
					for range 2 {
						_, _ = c.Write(long)
					}
				}()
				slowly(t, far, len(long))
				slowly(t, far, MaxPayload/2)
				start := time.Now()
				<-wrote
				if took := time.Since(start); took < timeout/4 || took > timeout*5/4 {
					t.Errorf("cut off %v after the last byte, want about %v", took, timeout)
				}
				_ = c.Close()
			})
		})
	}
}

// The kernel can hold so much for a slow peer that it takes nothing more for longer than the timeout.
func TestTimeoutSeesIntoTheKernel(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what the kernel holds")
	}
	t.Parallel()
	const timeout, rate, step = 2 * time.Second, 200_000, 20 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := near.(*net.TCPConn).SetWriteBuffer(1 << 20); err != nil { // the kernel takes twice as much
		t.Fatal(err)
	}
	c := NewGuard(GuardOptions{IOTimeout: timeout}).Wrap(near, "")
	defer c.Close()
	long := request(1, MaxPayload)
	wrote := make(chan error, 1)
	go func() {
		_, _ = c.Write(long)
		_, err := c.Write(long)
		wrote <- err
	}()
	for end := time.Now().Add(2 * timeout); time.Now().Before(end); time.Sleep(step) {
		if _, err := io.CopyN(io.Discard, far, rate*int64(step)/int64(time.Second)); err != nil {
			t.Fatalf("cut off: %v", err)
		}
	}
	go io.Copy(io.Discard, far)
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestCloseLingersAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := newClientConn(t, near, ClientOptions{})
		go func() { _, _ = c.Write(request(1, 1)) }()
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != linger {
			t.Errorf("Close took %v, want %v", took, linger)
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
			client := ttrpc.NewClient(newClientConn(t, reading{c, hostile(c)}, ClientOptions{}))
			defer func() { _ = client.Close() }()
			guarded := NewGuard(GuardOptions{}).Wrap(reading{s, hostile(s)}, "")
			var conn net.Conn = guarded
			if name == "small pieces out" {
				conn = reading{guarded, iotest.OneByteReader(guarded)}
			}
			serve(t, conn, testservice.Service{})
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
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, errors.New("tls"),
	} {
		r := io.MultiReader(bytes.NewReader(frame), iotest.ErrReader(lost))
		c := NewGuard(GuardOptions{}).Wrap(reading{&replay{}, iotest.DataErrReader(r)}, "")
		p := make([]byte, ttrpcBuffer)
		if n, err := c.Read(p); err != nil || !bytes.Equal(p[:n], frame) {
			t.Errorf("%v: first Read: got %d bytes, %v", lost, n, err)
		}
		for range 2 {
			if n, err := c.Read(p); n != 0 || err != io.EOF {
				t.Errorf("%v: later Read: got %d bytes, %v", lost, n, err)
			}
		}
		if err := c.Err(); err != nil {
			t.Errorf("a connection that was cut off was taken for one that was refused: %v", err)
		}
	}
}
