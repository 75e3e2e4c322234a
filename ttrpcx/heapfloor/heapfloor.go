// Package heapfloor makes a program with a small heap collect garbage less often. The program uses more memory instead.
//
// Go collects garbage when the heap has doubled. The heap of a server with small calls has only a few MiB, so a busy
// server collects very often. A heap floor is a size up to which the heap may grow without a collection.
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

// ErrGOGC means that the environment variable GOGC already says how often to collect garbage.
var ErrGOGC = errors.New("GOGC is set in the environment, so a heap floor cannot be used: unset one of them")

const (
	// defaultPercent is Go's default for GOGC: collect when the heap has doubled.
	defaultPercent = 100

	// defaultMinimum is the size in bytes to which the heap may always grow if GOGC is 100. For other values, the
	// runtime multiplies it by GOGC/100: "The GOGC variable", https://go.dev/doc/gc-guide.
	defaultMinimum = 4 << 20
)

// current is the floor in use.
var current struct {
	sync.Mutex
	*floor
}

// floor is a heap floor in use.
type floor struct {
	bytes    uint64
	percent  int // GOGC as it was set last
	previous int // GOGC before Set
	samples  [3]metrics.Sample
}

// Set lets the heap grow to about the given size before a collection. If more than half of that is live data, Go's
// default applies: the heap may double. A floor below 4 MiB changes nothing, and 0 means no floor.
//
// Set uses debug.SetGCPercent, and calls it again after each collection if the amount of live data has changed. That is
// a setting of the whole process, so there can be only one floor. restore removes it and restores the setting. If GOGC
// is set in the environment, Set changes nothing and returns ErrGOGC. A memory limit (GOMEMLIMIT) still applies: near
// the limit, the runtime collects, however high the floor is. Without a limit, the floor is how much more memory the
// process may use.
//
// restore is never nil, and may be called more than once.
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

// sentinel is an object to which nothing refers, so its cleanup runs after the next collection. It is large enough to
// get memory of its own: tiny objects share blocks, which other objects can keep alive.
type sentinel [4]uint64

func (f *floor) arm() {
	runtime.AddCleanup(new(sentinel), (*floor).collected, f)
}

func (f *floor) collected() {
	current.Lock()
	defer current.Unlock()
	if current.floor == f {
		f.tune()
		f.arm()
	}
}

// tune sets GOGC so that the next collection starts at the floor.
func (f *floor) tune() {
	metrics.Read(f.samples[:])
	live := f.samples[0].Value.Uint64()
	roots := f.samples[1].Value.Uint64() + f.samples[2].Value.Uint64()
	if p := percent(f.bytes, live, roots); p != f.percent {
		f.percent = p
		debug.SetGCPercent(p)
	}
}

// percent returns the lowest GOGC, at least 100, with which the heap may grow to the floor. The runtime lets the heap
// grow to the greater one of live + (live + roots) * GOGC / 100 and defaultMinimum * GOGC / 100.
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
