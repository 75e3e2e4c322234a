package wire

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// verdict is what becomes of a frame that a client sent.
type verdict uint8

const (
	pass   verdict = iota // ttrpc gets it
	drop                  // ttrpc does not get it
	hold                  // nothing more is read until a call has ended
	busy                  // ttrpc does not get it, and the client is told that too many calls are open
	ending                // the same, but that the server is shutting down
)

// call is what a judge knows of an open call.
type call struct {
	kind     kind
	closed   bool // the client has said that it sends no more
	answered bool // ttrpc has answered in the place of the handler, which still runs
}

// judge has the rules for what a client may send, and what they depend on: the calls of one connection.
type judge struct {
	maxCalls int
	draining bool // refuse new calls
	overdue  bool // at the limit, no call has ended for too long: refuse new ones instead of waiting

	lastID  uint32 // of a request
	calls   map[uint32]call
	sending int // calls whose client still sends messages
}

// judge says what becomes of the frame with header h, or why the client is to be refused. A call for which it says pass
// is open from then on.
func (j *judge) judge(h Header) (verdict, error) {
	open, known := j.calls[h.StreamID]
	switch {
	case h.Length > MaxPayload:
		return drop, fmt.Errorf("frame of %d bytes is over the limit of %d", h.Length, MaxPayload)
	case h.Type == TypeRequest && h.StreamID%2 == 0:
		return drop, fmt.Errorf("stream id %d of a request is even", h.StreamID)
	case h.Type == TypeRequest && h.StreamID <= j.lastID:
		return drop, fmt.Errorf("stream id %d of a request is not higher than %d", h.StreamID, j.lastID)
	case h.Type == TypeRequest:
		return j.request(h.StreamID), nil
	case h.Type != TypeData:
		return drop, fmt.Errorf("frame type %d is not one that clients send", h.Type)
	case h.StreamID > j.lastID:
		return drop, fmt.Errorf("data for stream %d, which was never opened", h.StreamID)
	case h.Flags&(FlagRemoteClosed|FlagNoData) != 0 && h.Length > 0:
		return drop, fmt.Errorf("data for stream %d with flags %#x has a payload", h.StreamID, h.Flags)
	case !known || open.answered:
		return drop, nil
	case open.kind != clientStream:
		return drop, fmt.Errorf("data for stream %d, which takes none", h.StreamID)
	case open.closed:
		return drop, fmt.Errorf("data for stream %d after its end", h.StreamID)
	case h.Flags&FlagRemoteClosed != 0:
		j.stopSending(open)
		open.closed = true
		j.calls[h.StreamID] = open
	}
	return pass, nil
}

func (j *judge) request(id uint32) verdict {
	full := len(j.calls) >= j.maxCalls
	if full && j.sending == 0 && !j.overdue && !j.draining {
		return hold
	}
	j.lastID = id
	switch {
	case j.draining:
		return ending
	case full:
		return busy
	case j.calls == nil:
		j.calls = make(map[uint32]call)
	}
	j.calls[id] = call{}
	return pass
}

// opened notes the kind of a call, which shows only when its whole request was read.
func (j *judge) opened(id uint32, k kind) {
	if k == unary {
		return
	}
	j.calls[id] = call{kind: k}
	if k == clientStream {
		j.sending++
	}
}

// answered notes a frame that ttrpc sends. It reports whether that ends a call.
func (j *judge) answered(f *frame) bool {
	open, ok := j.calls[f.StreamID]
	if !ok || !f.closes() { // ttrpc answers some calls twice
		return false
	}
	if f.Type == TypeResponse && open.kind != unary && inPlaceOfHandler(f) {
		j.stopSending(open)
		open.answered = true
		j.calls[f.StreamID] = open
		return false
	}
	j.stopSending(open)
	delete(j.calls, f.StreamID)
	j.overdue = false
	return true
}

// stopSending notes that the client of an open call is not waited for any more.
func (j *judge) stopSending(open call) {
	if open.kind == clientStream && !open.closed && !open.answered {
		j.sending--
	}
}

// inPlaceOfHandler reports whether a response to a stream comes from ttrpc's receive loop while the handler still
// runs. It answers so when it cannot deliver a message because the stream is full or its deadline has passed, and
// forgets the stream. Counting the call as ended would let a peer run any number of handlers at once. A handler that
// returns the very same error is mistaken for it, and counts as running until the connection ends.
func inPlaceOfHandler(f *frame) bool {
	const longest = 512
	var r ttrpc.Response
	if f.Length > longest || proto.Unmarshal(f.payload(), &r) != nil {
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
