package wire

import "sync/atomic"

// budget is a number of bytes that connections share. Shares are given in the order in which they are asked for.
type budget struct {
	turn  chan struct{} // is filled by the one whose share comes next
	freed chan struct{} // is filled when free has grown
	free  atomic.Int64
}

func newBudget(n int) *budget {
	b := &budget{turn: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
	b.free.Store(int64(n))
	return b
}

// take waits for n bytes and reports whether it got them; it gives up when quit is closed. n must not be more than the
// whole budget.
func (b *budget) take(n int, quit <-chan struct{}) bool {
	select {
	case b.turn <- struct{}{}:
	case <-quit:
		return false
	}
	defer func() { <-b.turn }()
	for b.free.Load() < int64(n) {
		select {
		case <-b.freed:
		case <-quit:
			return false
		}
	}
	b.free.Add(-int64(n))
	return true
}

// give returns n bytes that take gave.
func (b *budget) give(n int) {
	b.free.Add(int64(n))
	select {
	case b.freed <- struct{}{}:
	default:
	}
}
