package wire

import "sync"

// budget is a number of bytes that connections share. Shares are given in the order in which they are asked for.
type budget struct {
	mu    sync.Mutex
	free  int
	queue []*claim
}

// claim is a share that somebody waits for.
type claim struct {
	n     int
	given chan struct{}
}

// take waits for n bytes and reports whether it got them; it gives up when quit is closed. n must not be more than the
// whole budget.
func (b *budget) take(n int, quit <-chan struct{}) bool {
	b.mu.Lock()
	if len(b.queue) == 0 && n <= b.free {
		b.free -= n
		b.mu.Unlock()
		return true
	}
	c := &claim{n: n, given: make(chan struct{})}
	b.queue = append(b.queue, c)
	b.mu.Unlock()

	select {
	case <-c.given:
		return true
	case <-quit:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.given:
		b.free += n
	default:
		c.n = 0 // leaves the queue as soon as it comes to the front
	}
	b.serve()
	return false
}

// give returns n bytes that take gave.
func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.serve()
}

func (b *budget) serve() {
	for len(b.queue) > 0 && b.queue[0].n <= b.free {
		b.free -= b.queue[0].n
		close(b.queue[0].given)
		b.queue[0] = nil
		b.queue = b.queue[1:]
	}
}
