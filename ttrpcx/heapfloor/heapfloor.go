// Package heapfloor makes a program with a small heap collect less often, at the price of memory.
//
// Go collects when the heap has doubled, but a server of small calls has a heap of a few MiB, so that most of what it
// allocates for a busy second is collected in tiny steps. A floor sets a size below which the heap may grow at will.
package heapfloor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// ErrGOGC says that the environment has settled how often to collect.
var ErrGOGC = errors.New("GOGC is set in the environment, which leaves nothing to a heap floor: unset one of them")

const (
	// defaultPercent is GOGC where nobody sets it: collect when the heap has doubled.
	defaultPercent = 100

	// defaultMinimum is what the heap may grow to at least if GOGC is 100. The runtime scales it with GOGC: "The GOGC
	// variable", https://go.dev/doc/gc-guide.
	defaultMinimum = 4 << 20
)

// current is the floor that is in force.
var current struct {
	sync.Mutex
	*floor
}

// floor is a heap floor while it is in force.
type floor struct {
	bytes    uint64
	percent  int // as last set
	previous int
	samples  [3]metrics.Sample
}

// Set lets the heap grow to about the given size before it is collected, where Go's default would collect sooner; where
// live data is over half of that, the default is what counts. Less than 4 MiB changes nothing, and 0 is no floor.
//
// It works through debug.SetGCPercent, which it calls anew after each collection that changed how much is live, and which
// belongs to the whole process: a second floor is an error until restore, which puts back what was there before. If GOGC
// is set in the environment, Set does nothing and returns ErrGOGC. A memory limit (GOMEMLIMIT) stays in force: near it,
// the runtime collects however high the floor is. Without one, the process takes up to the floor more memory.
//
// restore is never nil and may be called more than once.
func Set(bytes Size) (restore func(), err error) {
	restore = func() {}
	switch {
	case bytes < 0:
		return restore, fmt.Errorf("a heap floor of %d bytes: want zero or more", int64(bytes))
	case bytes == 0:
		return restore, nil
	case os.Getenv("GOGC") != "":
		return restore, ErrGOGC
	}
	current.Lock()
	defer current.Unlock()
	if current.floor != nil {
		return restore, errors.New("a heap floor is set already")
	}
	f := &floor{bytes: uint64(bytes), percent: defaultPercent, previous: debug.SetGCPercent(defaultPercent)}
	for i, name := range []string{"/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes"} {
		f.samples[i].Name = name
	}
	current.floor = f
	f.tune()
	f.arm()
	return f.restore, nil
}

func (f *floor) restore() {
	current.Lock()
	defer current.Unlock()
	if current.floor == f {
		debug.SetGCPercent(f.previous)
		current.floor = nil
	}
}

// cycle is garbage from the start, so its cleanup runs when a collection is over. Its size keeps it out of the
// allocator's batches of tiny objects, which can live on.
type cycle [4]uint64

func (f *floor) arm() {
	runtime.AddCleanup(new(cycle), (*floor).collected, f)
}

func (f *floor) collected() {
	current.Lock()
	defer current.Unlock()
	if current.floor == f {
		f.tune()
		f.arm()
	}
}

// tune sets the percentage with which the coming collection waits for the floor.
func (f *floor) tune() {
	metrics.Read(f.samples[:])
	live := f.samples[0].Value.Uint64()
	roots := f.samples[1].Value.Uint64() + f.samples[2].Value.Uint64()
	if p := percent(f.bytes, live, roots); p != f.percent {
		f.percent = p
		debug.SetGCPercent(p)
	}
}

// percent is the lowest GOGC, from 100, with which the heap may grow to the floor. The runtime lets it grow to the greater
// of live + (live + roots) * GOGC / 100 and defaultMinimum * GOGC / 100.
func percent(floor, live, roots uint64) int {
	if floor <= live {
		return defaultPercent
	}
	p := min(
		float64(floor-live)*100/float64(max(live+roots, 1)),
		float64(floor)*100/defaultMinimum,
	)
	return int(min(max(p, defaultPercent), math.MaxInt32))
}
