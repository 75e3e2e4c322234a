package wire

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	defaultMaxCalls     = 256
	defaultMaxReceiving = 64 << 20

	// largeFrame is the length in bytes from which a payload needs a share of GuardOptions.MaxReceiving: ttrpc sets
	// memory aside for all of it as soon as it has seen the header.
	largeFrame = 32 << 10

	// maxReadAhead is how many bytes are read while one and the same write is stuck. Without a bound a peer that
	// sends and never reads fills the queues of its streams, 64 messages each.
	maxReadAhead = 1 << 20
)

// GuardOptions configure a Guard. The zero value is usable.
type GuardOptions struct {
	// MaxCalls is the number of calls that may be open on one connection. Default 256.
	//
	// At the limit the connection is not read until a call ends. If a call is open whose client still sends messages,
	// that would deadlock it, so a further call is answered with ResourceExhausted instead; likewise if no call has
	// ended for IOTimeout, which also finds out peers that have gone.
	MaxCalls int

	// MaxReceiving bounds the bytes of all frames of 32 KiB and more that are being received, over all connections.
	// Who comes later is not read until there is room. Default 64 MiB; less than 4 MiB, one frame's maximum, counts
	// as 4 MiB.
	MaxReceiving int

	// IOTimeout is how long a peer may take to send the rest of a frame or to take what is written to it before its
	// connection is closed. It is kept to within a quarter of itself; time during which the Guard or ttrpc does not
	// read does not count. Between frames a peer may be silent for ever. Default 30 s.
	IOTimeout time.Duration

	// Services describes services that are registered with the server but not in protoregistry.GlobalFiles, so that
	// their streams are known. What is known from neither is taken for unary, and a peer that sends Data to it is
	// refused.
	Services map[string]*ttrpc.ServiceDesc
}

// Guard protects a stock ttrpc.Server from its peers: it judges each frame before ttrpc sees it. All connections of a
// server share one Guard. It needs no closing.
//
// A Guard holds at most MaxReceiving bytes for the large frames that arrive, and for each connection, beside what ttrpc
// itself needs:
//   - idle: under 1.5 KB, no goroutine and no buffer;
//   - output: 256 KiB queued by ttrpc and as much of refusals, once more while the former is being written;
//   - input: as many bytes as ttrpc reads at once, 4 KiB, for what was read and may not be passed on yet;
//   - open calls: about 32 bytes each.
//
// Once a write is stuck, at most 1 MiB and one frame more are read until the peer takes it.
//
// ttrpc and the handlers hold up to MaxCalls requests and as many responses of up to 4 MiB each; a stream whose handler
// does not receive holds up to 65 messages. What a handler takes from its stream cannot be seen on the wire, so
// handlers that receive more slowly than peers send are bounded by MaxCalls alone. ttrpc ends such a stream when it is
// full, and delays its connection by a second before it does.
type Guard struct {
	options   GuardOptions
	methods   *methods
	receiving budget
}

// NewGuard returns a Guard. It knows the services that are linked into the program by then.
func NewGuard(o GuardOptions) *Guard {
	if o.MaxCalls <= 0 {
		o.MaxCalls = defaultMaxCalls
	}
	if o.MaxReceiving <= 0 {
		o.MaxReceiving = defaultMaxReceiving
	}
	o.MaxReceiving = max(o.MaxReceiving, MaxPayload)
	return &Guard{options: o, methods: newMethods(o.Services), receiving: budget{free: o.MaxReceiving}}
}

// Wrap returns a GuardedConn over c, which it owns from then on.
func (g *Guard) Wrap(c net.Conn) *GuardedConn {
	conn := &GuardedConn{guard: g, request: requestParser{methods: g.methods}}
	conn.init(c, g.options.IOTimeout, conn)
	return conn
}

// call is what the Guard knows of an open call.
type call struct {
	kind     kind
	closed   bool // the client has said that it sends no more
	answered bool // ttrpc has answered in the place of the handler, which still runs
}

// GuardedConn is a server's connection whose input is judged and whose output is gathered, for one ttrpc.Server.
//
// It is refused, which is to say that Read returns io.EOF, if the peer sends
//   - a frame longer than 4 MiB or of a type that clients do not send;
//   - a request with an even stream id or one that is not higher than all before, or that is not a valid ttrpc.Request;
//   - data for an id that is higher than all before, or for an open call that takes none: one that is not known to take
//     messages from the client, or whose client has closed its side;
//   - data that closes the client's side or is marked as no data and has a payload.
//
// Data for a call that has ended is a race that no peer can avoid, and is dropped.
type GuardedConn struct {
	gather
	guard *Guard

	// The following belong to the reader.
	readMu   sync.Mutex
	stash    []byte           // read and not judged yet
	head     [HeaderSize]byte // backs stash for an unfinished header
	ready    []byte           // judged and not handed out yet, for callers with small slices
	readErr  error            // what is left is handed out first
	lastRead int              // bytes that the last read brought
	frame    Header           // the current frame
	left     int              // bytes of its payload to come
	skip     bool             // it is not handed on
	request  requestParser    // reads it if it is a request
	lastID   uint32           // of a request
	finished uint64           // frames of which all was read

	// The following are guarded by mu.
	calls    map[uint32]call
	sending  int  // calls whose client still sends messages
	draining bool // refuse new calls
	overdue  bool // no call has ended for IOTimeout at the limit
	drained  chan struct{}
	reason   error  // why the peer was refused
	share    int    // bytes of guard.receiving that the current frame holds
	inFrame  bool   // the reader waits for the rest of a frame
	frames   uint64 // finished, as of the last read
	waiting  bool   // the reader waits for a call to end
	waits    uint64 // times the reader has waited
	ahead    int    // bytes read since the write numbered aheadOf began
	aheadOf  uint64

	received stall
	freed    stall
}

var _ net.Conn = (*GuardedConn)(nil)

// Calls returns the number of open calls: requests that were passed on to ttrpc and that their handlers have not
// answered yet.
func (c *GuardedConn) Calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// Err returns why the peer was refused, or nil if it was not.
func (c *GuardedConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// Drain answers each request that comes from now on with Unavailable, while open calls go on. The channel it returns is
// closed when no call is open and all output has been handed to the connection underneath, or the connection has ended.
// It stays closed, and the connection open: a peer may still be sending requests, and gets answers until Close.
func (c *GuardedConn) Drain() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.drained == nil {
		c.drained = make(chan struct{})
		c.progressed()
	}
	c.cond.Broadcast()
	return c.drained
}

// progressed closes drained if it is time.
func (c *GuardedConn) progressed() {
	if c.drained == nil {
		return
	}
	select {
	case <-c.drained:
		return
	default:
	}
	flushed := c.queue == nil && c.injected == nil && !c.writing && c.track.atBoundary()
	if c.ended() != nil || len(c.calls) == 0 && flushed {
		close(c.drained)
	}
}

// Close refuses further writes, gives the peer up to a second (or the IOTimeout, if shorter) to take what is queued,
// and closes the connection underneath.
func (c *GuardedConn) Close() error {
	err := c.gather.Close()
	c.settle() // ttrpc need not read again
	return err
}

// wrote takes the calls that ttrpc closes off the list.
func (c *GuardedConn) wrote(h Header, rest []byte) {
	open, ok := c.calls[h.StreamID]
	switch {
	case !ok:
		// ttrpc answers some calls twice.
	case !h.closes():
		c.others = len(c.calls) - 1
		return
	case h.Type == TypeResponse && open.kind != unary && inPlaceOfHandler(h, rest):
		if !open.answered {
			c.stopSending(open)
			open.answered = true
			c.calls[h.StreamID] = open
		}
	default:
		c.stopSending(open)
		delete(c.calls, h.StreamID)
		c.overdue = false
		if c.waiting {
			c.cond.Broadcast()
		}
	}
	c.others = len(c.calls)
}

// stopSending notes that the client of an open call is not waited for any more.
func (c *GuardedConn) stopSending(open call) {
	if open.kind == clientStream && !open.closed && !open.answered {
		c.sending--
	}
}

// inPlaceOfHandler reports whether a response to a stream comes from ttrpc's receive loop while the handler still
// runs. It answers so when it cannot deliver a message because the stream is full or its deadline has passed, and
// forgets the stream. Counting the call as ended would let a peer run any number of handlers at once. A handler that
// returns the very same error is mistaken for it, and counts as running until the connection ends.
func inPlaceOfHandler(h Header, rest []byte) bool {
	const longest = 512
	var r ttrpc.Response
	if h.Length > longest || len(rest) < int(h.Length) || proto.Unmarshal(rest[:h.Length], &r) != nil {
		return false
	}
	message := r.GetStatus().GetMessage()
	switch codes.Code(r.GetStatus().GetCode()) {
	case codes.InvalidArgument:
		return message == "StreamID is no longer active" || strings.HasPrefix(message, "data handling error: ")
	case codes.Unknown:
		return message == context.DeadlineExceeded.Error()
	}
	return false
}

// check counts the time of a peer that does not finish a frame, and of one that waits for a call to end.
func (c *GuardedConn) check() (watch bool, err error) {
	if c.freed.tick(c.waiting, c.waits) {
		c.overdue = true
		c.cond.Broadcast()
	}
	if c.received.tick(c.inFrame, c.frames) {
		err = fmt.Errorf("read from peer: frame not finished for %v: %w", c.timeout, os.ErrDeadlineExceeded)
	}
	watch = c.waiting || c.inFrame
	if !watch && len(c.calls) == 0 {
		c.calls = nil // a map keeps the room of its busiest time
	}
	return watch, err
}

func (c *GuardedConn) readsAnswers() bool { return false }

func (c *GuardedConn) cutOff(reason error) {
	if c.reason == nil {
		c.reason = reason
	}
}

// refusal returns the payload of a response that ttrpc's handlers had no part in.
func refusal(code codes.Code, message string) []byte {
	b, err := proto.Marshal(&ttrpc.Response{Status: status.New(code, message).Proto()})
	if err != nil {
		panic(fmt.Sprintf("wire: marshal refusal: %v", err)) // a constant message is always valid
	}
	return b
}

var (
	refusedDraining = refusal(codes.Unavailable, "server is shutting down")
	refusedBusy     = refusal(codes.ResourceExhausted, "too many calls are open on this connection")
)
