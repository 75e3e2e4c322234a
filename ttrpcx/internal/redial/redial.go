// Package redial has a connection that outlives its server. It knows ttrpc's frames and no sockets.
package redial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/ttrpcx/wire"
)

const (
	// The growth and spread of the pause between attempts are those of gRPC's connection backoff, and so is the time that
	// an attempt may take: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md. The pauses themselves are
	// shorter than gRPC's, because a server on the same machine is back within milliseconds.
	factor             = 1.6
	jitter             = 0.2
	attemptTimeout     = 20 * time.Second
	defaultBackoffBase = 50 * time.Millisecond
	defaultBackoffMax  = 5 * time.Second

	// queueMax bounds what waits for a connection, in bytes. It has room for any one frame that is legal.
	queueMax = wire.HeaderSize + wire.MaxPayload

	// linger is how long answers are still read from a connection that can no longer be written. It only matters
	// if that connection does not come to its end by itself, as a broken socket does.
	linger = time.Second

	// buffer is what one read asks for at least, in bytes; bufio gives ttrpc the same by default.
	buffer = 4096

	// bufferKept is the largest read buffer that a connection keeps after the frame which needed it, in bytes: enough
	// for common payloads, too little to matter in a client that once received a large one.
	bufferKept = 128 << 10
)

// Options change how a Conn behaves; the zero value is ready to use.
type Options struct {
	// Logger is told of every connection that is lost, of every failed attempt and of every new connection. Default:
	// slog.Default().
	Logger *slog.Logger

	// BackoffBase is the pause after the first failed attempt to connect. Each further failure multiplies it by 1.6, and
	// each pause is up to 20 % shorter or longer at random. Default: 50 ms.
	BackoffBase time.Duration

	// BackoffMax bounds the pause before its random part. Default: 5 s.
	BackoffMax time.Duration

	// WaitForReady lets a call that finds no server wait until there is one, for as long as the call's deadline allows
	// and if need be forever. A call that is cancelled without having a deadline is sent nevertheless, because ttrpc
	// tells nobody of a cancelled call. Default: such a call fails at once.
	WaitForReady bool
}

// Conn is the client's end of a connection that outlives its server. Hand it to ttrpc.NewClient in place of a plain
// connection: the client, and what is generated on top of it, then stays usable when the server goes away and comes
// back, where it would otherwise fail every further call.
//
// A call that is open when the connection is lost ends with code Unavailable and a message which says that the call may
// have run. Such a call is never sent again. A call that reached no server ends with code Unavailable and a message
// which says that it was not sent. A request of which the connection took only a part cannot have run; it goes to the
// next connection as if it had been made a moment later. Messages that a stream still sends after its connection was
// lost are dropped, and the next receive tells why.
//
// A lost connection is replaced when a call needs it and not before. A connection that is lost before its first answer
// and within BackoffMax of being made counts as a failed attempt, so that a server which only hangs up is not hammered.
//
// Nothing runs in the background but an attempt to connect and the sending of what waited for it: the connection is
// read in the goroutine that calls Read and written in the one that calls Write. Read must be called all the time, as
// ttrpc.Client does, because that is how a lost connection is noticed. The methods may be called from several
// goroutines.
//
// Frames are handed out whole or not at all, at the price of one copy: ttrpc.Client waits for the rest of a frame that
// it has begun to read, so that after half of one there would be no place to put any other answer.
type Conn struct {
	dial   func(context.Context) (net.Conn, error)
	opts   Options
	ctx    context.Context // of every attempt but the first; ends with Close
	cancel context.CancelFunc

	// rmu is held by Read and guards what only Read needs. It is taken before the other two locks.
	rmu    sync.Mutex
	buf    []byte // whole frames, then the start of one that is not
	whole  int    // length of the whole frames in buf
	ready  []byte // what Read hands out next; part of buf, or answers
	long   int64  // bytes still to come of a frame that is over wire.MaxPayload
	pad    int64  // bytes that such a frame lacks because its connection was lost
	proven bool   // a frame was read from conn

	// wmu is held while something is written, so that frames neither mix nor change their order. It is taken before mu.
	wmu sync.Mutex
	out []byte // the start of a frame of which Write has not got the rest

	mu       sync.Mutex
	changed  sync.Cond       // conn, answers or closed have changed
	conn     net.Conn        // nil while there is none
	broken   bool            // conn takes no more frames
	since    time.Time       // when conn was made
	addr     [2]net.Addr     // local and remote of the latest connection
	calls    map[uint32]bool // by stream id: true if it was sent on conn, false if it waits in queue
	queue    []frame         // what waits for a connection
	queued   int             // bytes in queue
	answers  []byte          // frames that no server sent
	dialing  bool            // redial runs
	failures int             // failed attempts in a row
	lastErr  error           // of the latest failed attempt
	next     time.Time       // earliest time of the next attempt
	closed   bool
}

// frame is a whole frame to send, in two parts because that is how ttrpc writes a long one.
type frame struct {
	wire.Header
	head, tail []byte
	expires    time.Time // of a request that waits and has a deadline
}

func (f frame) size() int { return len(f.head) + len(f.tail) }

func (f frame) writeTo(conn net.Conn) (int64, error) {
	if len(f.head) == 0 {
		n, err := conn.Write(f.tail)
		return int64(n), err
	}
	parts := net.Buffers{f.head, f.tail}
	return parts.WriteTo(conn)
}

var _ net.Conn = (*Conn)(nil)

// New dials for the first time and returns that attempt's error as it is, so that a wrong address shows at the
// start. With WaitForReady it tries again until ctx ends. Once New has returned, only the values of ctx matter.
//
// dial is called for every new connection, never twice at a time, with a context that ends after 20 s, when the
// Conn is closed and when dial returns. It must return either a connection, which the Conn then owns, or an
// error. Whatever else wraps the connection, such as TLS or a Conn that gathers writes, belongs into dial.
func New(
	ctx context.Context, dial func(context.Context) (net.Conn, error), opts Options,
) (*Conn, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.BackoffBase <= 0 {
		opts.BackoffBase = defaultBackoffBase
	}
	if opts.BackoffMax <= 0 {
		opts.BackoffMax = defaultBackoffMax
	}
	r := &Conn{dial: dial, opts: opts, calls: make(map[uint32]bool)}
	r.changed.L = &r.mu
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))

	for {
		conn, err := r.attempt(ctx)
		if err == nil {
			r.adopt(conn)
			return r, nil
		}
		if !opts.WaitForReady {
			r.cancel()
			return nil, err
		}
		r.failed(err)
		if !pause(ctx, time.Until(r.next)) {
			r.cancel()
			return nil, fmt.Errorf("wait for the server: %w: %w", context.Cause(ctx), err)
		}
	}
}

// Read hands out what the server sent and the answers to the calls that it can no longer answer. It returns
// net.ErrClosed once the Conn is closed and no other error, ever: ttrpc.Client gives up at the first one.
func (r *Conn) Read(p []byte) (int, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	for {
		if len(r.ready) > 0 {
			n := copy(p, r.ready)
			r.ready = r.ready[n:]
			return n, nil
		}
		if r.pad > 0 {
			n := int(min(r.pad, int64(len(p))))
			clear(p[:n])
			r.pad -= int64(n)
			return n, nil
		}
		conn, answers := r.await()
		switch {
		case answers != nil:
			r.ready = answers
		case conn != nil:
			r.fill(conn)
		default:
			return 0, net.ErrClosed
		}
	}
}

// await waits for something to read: answers or a connection, or neither if the Conn is closed.
func (r *Conn) await() (conn net.Conn, answers []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return nil, nil
		case len(r.answers) > 0 && r.long == 0:
			answers, r.answers = r.answers, nil
			return nil, answers
		case r.conn != nil:
			return r.conn, nil
		}
		r.changed.Wait()
	}
}

// fill reads from conn once and makes ready the frames that are now whole.
func (r *Conn) fill(conn net.Conn) {
	rest := r.buf[r.whole:]
	need := buffer
	if h, ok := wire.ParseHeader(rest); ok {
		need = max(need, wire.HeaderSize+int(h.Length))
	}
	switch old := r.buf; {
	case cap(old) < need || cap(old) > bufferKept && need <= bufferKept:
		r.buf = append(newBuffer(need), rest...)
		if cap(old) > bufferKept {
			large.Put(&old)
		}
	case r.whole > 0:
		r.buf = append(r.buf[:0], rest...)
	}
	n, err := conn.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	r.whole = r.scan()
	r.ready = r.buf[:r.whole]
	if err != nil {
		r.lose(conn, err)
	}
}

// large has read buffers of over bufferKept for whichever connection needs one next. Collections empty it.
var large sync.Pool // of *[]byte

// newBuffer returns an empty buffer with room for n bytes.
func newBuffer(n int) []byte {
	if n > bufferKept {
		if b, ok := large.Get().(*[]byte); ok && cap(*b) >= n {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, n)
}

// scan returns the length of the whole frames in buf and marks the calls that they end.
func (r *Conn) scan() (whole int) {
	if r.long > 0 {
		whole = int(min(r.long, int64(len(r.buf))))
		r.long -= int64(whole)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		h, ok := wire.ParseHeader(r.buf[whole:])
		have, size := int64(len(r.buf)-whole), wire.HeaderSize+int64(h.Length)
		switch {
		case !ok || size > have && h.Length <= wire.MaxPayload:
			return whole
		case size > have:
			// ttrpc.Client throws this payload away and fails the call. So nobody misses the end of it if the connection
			// is lost, and there is no need to hold the frame back until it is whole.
			r.long = size - have
			whole = len(r.buf)
		default:
			whole += int(size)
		}
		r.proven = true
		if h.Type == wire.TypeResponse || h.Type == wire.TypeData && h.Flags&wire.FlagRemoteClosed != 0 {
			delete(r.calls, h.StreamID)
		}
	}
}

// lose ends conn after a read from it has failed, and answers the calls that were sent on it. Only Read calls it, so
// that whatever the server answered before it went away is read first.
func (r *Conn) lose(conn net.Conn, err error) {
	conn.Close()
	r.buf = r.buf[:r.whole]
	r.pad, r.long = r.long, 0
	proven := r.proven
	r.proven = false

	// A write under way ends now that conn is closed. Before it has ended nobody knows whether its request was sent.
	r.wmu.Lock()
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.wmu.Unlock()
		return
	}
	r.conn, r.broken = nil, false
	lost, hint := 0, ""
	if !proven {
		hint = " before its first answer, as when it refuses this client, which its log would tell"
	}
	for id, sent := range r.calls {
		if sent {
			r.answer(id, fmt.Sprintf("the connection to the server was lost%s (%v); the call may have run", hint, err))
			lost++
		}
	}
	if proven || time.Since(r.since) >= r.opts.BackoffMax {
		r.failures, r.next = 0, time.Time{}
	} else {
		r.failed(fmt.Errorf("connection lost at once: %w", err))
	}
	r.wake()
	r.mu.Unlock()
	r.wmu.Unlock()
	r.opts.Logger.Warn("connection to the server lost", "address", conn.RemoteAddr(), "error", err, "calls", lost)
}

// Write takes whole frames or parts of them. It blocks only while a connection takes the frame slowly, and never for a
// connection to be made. It returns net.ErrClosed once the Conn is closed, and before that an error only for a
// frame over MaxPayload: ttrpc.Client can never write again after an error. What cannot be sent is answered by Read.
func (r *Conn) Write(p []byte) (n int, err error) {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	for n < len(p) {
		if len(r.out) > 0 && len(r.out) < wire.HeaderSize || len(p)-n < wire.HeaderSize && len(r.out) == 0 {
			k := min(wire.HeaderSize-len(r.out), len(p)-n)
			r.out = append(r.out, p[n:n+k]...)
			n += k
			if len(r.out) < wire.HeaderSize {
				return n, nil
			}
		}
		h, ok := wire.ParseHeader(r.out)
		if !ok {
			h, _ = wire.ParseHeader(p[n:])
		}
		if h.Length > wire.MaxPayload {
			return n, fmt.Errorf("write frame: payload of %d bytes is over the limit of %d", h.Length, wire.MaxPayload)
		}
		k := wire.HeaderSize + int(h.Length) - len(r.out)
		if k > len(p)-n {
			r.out = append(r.out, p[n:]...)
			return len(p), nil
		}
		r.send(frame{Header: h, head: r.out, tail: p[n : n+k]})
		r.out = r.out[:0]
		n += k
	}
	return n, nil
}

// send writes f, lets it wait or drops it. wmu is held.
func (r *Conn) send(f frame) {
	request := f.Type == wire.TypeRequest
	r.mu.Lock()
	if r.conn == nil || r.broken {
		r.enqueue(f)
		r.mu.Unlock()
		return
	}
	if _, ok := r.calls[f.StreamID]; !request && !ok {
		r.mu.Unlock()
		return
	}
	// Before the write, because the answer can be read before Write returns.
	r.calls[f.StreamID] = true
	conn := r.conn
	r.mu.Unlock()

	n, err := f.writeTo(conn)
	if err == nil {
		return
	}
	r.mu.Lock()
	r.broken = true
	if request && n < int64(f.size()) {
		delete(r.calls, f.StreamID)
		r.enqueue(f)
	}
	r.mu.Unlock()
	if conn.SetReadDeadline(time.Now().Add(linger)) != nil {
		conn.Close()
	}
}

// enqueue lets f wait for a connection, or answers its call if it must not wait. mu is held.
func (r *Conn) enqueue(f frame) {
	request := f.Type == wire.TypeRequest
	if sent, ok := r.calls[f.StreamID]; !request && (sent || !ok) {
		return
	}
	if request && !r.opts.WaitForReady && r.conn == nil && time.Now().Before(r.next) {
		r.notSent(f.StreamID, r.lastErr)
		return
	}
	if r.queued+f.size() > queueMax {
		r.notSent(f.StreamID, errors.New("too much waits for a connection to the server"))
		r.prune()
		return
	}
	// ttrpc uses its buffers again.
	f.head, f.tail = nil, slices.Concat(f.head, f.tail)
	if request {
		r.calls[f.StreamID] = false
		if f.expires.IsZero() {
			f.expires = requestDeadline(f.tail[wire.HeaderSize:])
		}
	}
	r.queue = append(r.queue, f)
	r.queued += f.size()
	r.wake()
}

// requestDeadline returns when a request that was made just now times out, the zero time for never.
func requestDeadline(payload []byte) time.Time {
	var req ttrpc.Request
	if err := proto.Unmarshal(payload, &req); err != nil || req.TimeoutNano == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(req.TimeoutNano))
}

// prune drops what waits for calls that have been answered. mu is held.
func (r *Conn) prune() {
	r.queue = slices.DeleteFunc(r.queue, func(f frame) bool {
		_, ok := r.calls[f.StreamID]
		return !ok
	})
	r.queued = 0
	for _, f := range r.queue {
		r.queued += f.size()
	}
}

// expire answers the calls that have waited longer than their deadline, so that they are not sent to a server for which
// nobody waits any more. mu is held.
func (r *Conn) expire() {
	for _, f := range r.queue {
		if !f.expires.IsZero() && !time.Now().Before(f.expires) {
			r.notSent(f.StreamID, errors.New("no connection to the server before its deadline"))
		}
	}
	r.prune()
}

// notSent answers a call that reached no server. mu is held.
func (r *Conn) notSent(id uint32, err error) {
	r.answer(id, fmt.Sprintf("the call was not sent: %v", err))
}

// answer ends a call with code Unavailable. mu is held.
func (r *Conn) answer(id uint32, message string) {
	delete(r.calls, id)
	st := status.New(codes.Unavailable, strings.ToValidUTF8(message, "\uFFFD"))
	// Marshalling fails on invalid UTF-8 only.
	payload, _ := proto.Marshal(&ttrpc.Response{Status: st.Proto()})
	r.answers = wire.AppendFrame(r.answers, wire.Header{StreamID: id, Type: wire.TypeResponse}, payload)
	r.changed.Broadcast()
}

// wake starts an attempt to connect if something waits for it. mu is held.
func (r *Conn) wake() {
	if r.conn == nil && !r.dialing && !r.closed && len(r.queue) > 0 {
		r.dialing = true
		go r.redial()
	}
}

// redial connects and sends what waits, or gives up when nothing waits any more.
func (r *Conn) redial() {
	for {
		r.mu.Lock()
		r.expire()
		if len(r.queue) == 0 || r.closed {
			r.dialing = false
			r.mu.Unlock()
			return
		}
		delay := time.Until(r.next)
		r.mu.Unlock()
		if !pause(r.ctx, delay) {
			continue
		}
		conn, err := r.attempt(r.ctx)
		if err == nil {
			r.opts.Logger.Info("connection to the server made", "address", conn.RemoteAddr())
			r.connected(conn)
			return
		}
		r.mu.Lock()
		r.failed(err)
		attempts := r.failures
		r.mu.Unlock()
		if r.ctx.Err() == nil {
			r.opts.Logger.Warn("connection to the server not made", "error", err, "attempts", attempts)
		}
	}
}

// attempt dials once.
func (r *Conn) attempt(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return r.dial(ctx)
}

// pause waits for d and reports whether ctx was still alive then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return ctx.Err() == nil
}

// failed puts off the next attempt, and answers what waits if it must not wait that long. mu is held.
func (r *Conn) failed(err error) {
	delay := float64(r.opts.BackoffBase) * math.Pow(factor, float64(r.failures))
	delay = min(delay, float64(r.opts.BackoffMax)) * (1 + jitter*(2*rand.Float64()-1))
	r.failures++
	r.lastErr = err
	r.next = time.Now().Add(time.Duration(delay))
	if !r.opts.WaitForReady {
		for id, sent := range r.calls {
			if !sent {
				r.notSent(id, err)
			}
		}
		r.prune()
	}
}

// connected sends on conn what has waited for it.
func (r *Conn) connected(conn net.Conn) {
	// Held until all of it is sent, so that nothing newer overtakes it.
	r.wmu.Lock()
	defer r.wmu.Unlock()
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		conn.Close()
		return
	}
	r.expire()
	queue := r.queue
	r.queue, r.queued = nil, 0
	r.dialing = false
	r.adopt(conn)
	r.mu.Unlock()
	for _, f := range queue {
		r.send(f)
	}
}

// adopt makes conn the connection. mu is held.
func (r *Conn) adopt(conn net.Conn) {
	r.conn, r.since = conn, time.Now()
	r.addr = [2]net.Addr{conn.LocalAddr(), conn.RemoteAddr()}
	r.changed.Broadcast()
}

// Close closes the connection, ends an attempt to make one and drops what waits. It does not wait for dial to return; a
// connection that dial returns later is closed. Read and Write return net.ErrClosed from then on, of which ttrpc.Client
// makes ttrpc.ErrClosed for every open call. Further calls of Close do nothing.
func (r *Conn) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	conn := r.conn
	r.changed.Broadcast()
	r.mu.Unlock()
	r.cancel()
	if conn == nil {
		return nil
	}
	return conn.Close()
}

// LocalAddr returns the local address of the latest connection.
func (r *Conn) LocalAddr() net.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr[0]
}

// RemoteAddr returns the remote address of the latest connection.
func (r *Conn) RemoteAddr() net.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr[1]
}

// SetDeadline returns os.ErrNoDeadline. A deadline would make Read or Write fail, which ends a ttrpc.Client for good;
// put deadlines on the connections that dial returns.
func (r *Conn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline returns os.ErrNoDeadline, as SetDeadline does.
func (r *Conn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline returns os.ErrNoDeadline, as SetDeadline does.
func (r *Conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
