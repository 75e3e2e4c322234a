package grpcconn

import (
	"sync"

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// ReadAhead is how many bytes of messages a stream holds that have arrived but are not asked for yet. Small messages
// count with what they take in memory. Beyond it, the connection is not read until there is room, so that the server
// waits, for as long as it wants to. Two things can come on top: what one read brings, 4 MiB at most, and what ttrpc
// has not passed on yet, which is one message or two, and never more than the 64 that it queues.
const ReadAhead = 16 << 20

// messageCost is about what a message takes in addition to its frame.
const messageCost = 128

// queue holds messages between ttrpc, which drops what is not taken in time, and a reader that may be slow.
type queue struct {
	mu       sync.Mutex
	changed  sync.Cond
	messages []*raw
	bytes    int   // read, but not asked for
	err      error // why no more will come; io.EOF is the regular end
	dropped  bool  // what is left will not be asked for
}

func newQueue() *queue {
	q := new(queue)
	q.changed.L = &q.mu
	return q
}

// read counts bytes when they come from the connection: ttrpc passes them on when it gets to it.
func (q *queue) read(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes += n
}

func (q *queue) push(m *raw) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = append(q.messages, m)
	q.bytes += messageCost
	q.changed.Broadcast()
}

// end says why no more messages come. The first reason stays. With drop, those that are there are not read any more.
func (q *queue) end(err error, drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err, q.dropped = err, drop
		q.changed.Broadcast()
	}
}

func (q *queue) ended() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err != nil
}

// pop waits for a message, and returns the reason for the end after the last.
func (q *queue) pop() (*raw, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.messages) == 0 && q.err == nil {
		q.changed.Wait()
	}
	if len(q.messages) == 0 || q.dropped {
		return nil, q.err
	}
	m := q.messages[0]
	q.messages[0] = nil
	q.messages = q.messages[1:]
	q.bytes -= wire.HeaderSize + len(m.ProtoReflect().GetUnknown()) + messageCost
	q.changed.Broadcast()
	return m, nil
}

// waitForRoom waits until the queue has some, or has ended. It does not wait while no message is in it: the bytes may
// be of a frame that is too large, which ttrpc drops.
func (q *queue) waitForRoom() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes >= ReadAhead && len(q.messages) > 0 && q.err == nil {
		q.changed.Wait()
	}
}
