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
	pass     verdict = iota // ttrpc gets it
	gather                  // ttrpc gets it when all of it is here
	drop                    // ttrpc does not get it
	park                    // ttrpc gets it after calls have ended
	busy                    // ttrpc does not get it, and the client is told that too many calls are open
	ending                  // the same, but that the server is shutting down
	tooLong                 // the same, but that the message is too long
	noMemory                // the same, but that there is no memory for it
	probe                   // ttrpc does not get it, and the client is told that its stream id is even
	spoil                   // ttrpc gets a message that its handler cannot unmarshal, so that the handler ends
)

// call is what a judge knows of a call.
type call struct {
	kind     kind
	parked   bool  // ttrpc does not have its request yet
	closed   bool  // the client has said that it sends no more
	answered bool  // ttrpc has answered in the place of the handler, which still runs
	invalid  error // with which the call ends, because ttrpc or its handler was made to refuse a frame
	cost     int64 // bytes that the Account has for it
}

// judge has the rules for what a client may send, and what they depend on: the calls of one connection.
type judge struct {
	maxCalls int
	draining bool // refuse new calls
	overdue  bool // calls are parked, and none has ended for too long: refuse new ones

	lastID uint32 // of a request
	calls  map[uint32]call
	parked int // calls that are
}

// judge says what becomes of the frame with header h, or why the client is to be refused. It changes nothing.
func (j *judge) judge(h Header) (verdict, error) {
	open, known := j.calls[h.StreamID]
	switch {
	case h.Length > maxSkipped:
		return drop, fmt.Errorf("frame of %d bytes is over the limit of %d", h.Length, maxSkipped)
	case h.Type == TypeRequest && h.StreamID == keepAliveID:
		return probe, nil
	case h.Type == TypeRequest && h.StreamID%2 == 0:
		return drop, fmt.Errorf("stream id %d of a request is even", h.StreamID)
	case h.Type == TypeRequest && h.StreamID <= j.lastID:
		return drop, fmt.Errorf("stream id %d of a request is not higher than %d", h.StreamID, j.lastID)
	case h.Type == TypeRequest:
		return j.request(h), nil
	case h.Type != TypeData:
		return drop, fmt.Errorf("frame type %d is not one that clients send", h.Type)
	case h.StreamID > j.lastID:
		return drop, fmt.Errorf("data for stream %d, which was never opened", h.StreamID)
	case h.Flags&(FlagRemoteClosed|FlagNoData) != 0 && h.Length > 0:
		return drop, fmt.Errorf("data for stream %d with flags %#x has a payload", h.StreamID, h.Flags)
	case !known || open.answered || open.invalid != nil:
		return drop, nil
	case open.kind != clientStream:
		return drop, fmt.Errorf("data for stream %d, which takes none", h.StreamID)
	case open.closed:
		return drop, fmt.Errorf("data for stream %d after its end", h.StreamID)
	case h.Length > MaxPayload:
		return tooLong, nil
	case open.parked:
		return park, nil
	}
	return pass, nil
}

// request is for requests. ttrpc must get them in the order of their ids, so none may overtake a parked one.
func (j *judge) request(h Header) verdict {
	switch {
	case j.draining:
		return ending
	case h.Length > MaxPayload:
		return tooLong
	case j.parked == 0 && len(j.calls) < j.maxCalls:
		return pass
	case j.overdue:
		return busy
	}
	return park
}

// accept notes that the frame becomes what v says. cost is what the Account has for it.
func (j *judge) accept(h Header, v verdict, cost int64) {
	switch {
	case v == probe:
	case h.Type == TypeRequest:
		j.lastID = h.StreamID
		if v != pass && v != gather && v != park {
			return
		}
		if j.calls == nil {
			j.calls = make(map[uint32]call)
		}
		j.calls[h.StreamID] = call{parked: v == park, cost: cost}
		if v == park {
			j.parked++
		}
	case v == park || h.Flags&FlagRemoteClosed != 0:
		if open, ok := j.calls[h.StreamID]; ok {
			open.closed = h.Flags&FlagRemoteClosed != 0 || open.closed
			if v == park {
				open.cost += cost
			}
			j.calls[h.StreamID] = open
		}
	}
}

// opened notes what shows only when a whole request was read. cost is in addition to that of accept.
func (j *judge) opened(id uint32, k kind, invalid error, cost int64) {
	open := j.calls[id]
	open.kind, open.invalid = k, invalid
	open.cost += cost
	j.calls[id] = open
}

// running returns how many calls ttrpc has.
func (j *judge) running() int { return len(j.calls) - j.parked }

// unpark notes that ttrpc gets a parked call, which costs more from then on.
func (j *judge) unpark(id uint32, more int64) {
	open := j.calls[id]
	open.parked = false
	open.cost += more
	j.calls[id] = open
	j.parked--
}

// forget ends a parked call and returns its cost.
func (j *judge) forget(id uint32) int64 {
	open := j.calls[id]
	delete(j.calls, id)
	j.parked--
	return open.cost
}

// answered notes a frame that ttrpc sends. If that ends a call, it returns what is known of the call.
func (j *judge) answered(f *frame) (ended call, ok bool) {
	open, ok := j.calls[f.StreamID]
	if !ok || !f.closes() { // ttrpc answers some calls twice
		return call{}, false
	}
	if f.Type == TypeResponse && open.kind != unary && inPlaceOfHandler(f) {
		open.answered = true
		j.calls[f.StreamID] = open
		return call{}, false
	}
	delete(j.calls, f.StreamID)
	j.overdue = false
	return open, true
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
