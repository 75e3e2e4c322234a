// Package heapfloor lets a program with a small heap collect garbage less often while that makes it faster.
//
// Go collects garbage when the heap has doubled. The heap of a server with small calls has only a few MiB, so a busy
// server collects very often; one with large messages spends more time on that than on its calls. A heap floor is a
// size up to which the heap may grow without a collection. It rises while the program allocates much for the CPU
// time that it uses, and it is gone, with the memory that it took, when the program has little to do.
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
	"time"
)

// ErrGOGC means that the environment variable GOGC already says how often to collect garbage.
var ErrGOGC = errors.New("GOGC is set in the environment, so a heap floor cannot be used: unset one of them")

const (
	// Default is a bound that servers with messages of up to 64 KiB do not reach.
	Default Size = 64 << 20

	// worth is the constant of the rule in (*floor).want: twice as much lets the heap grow 1.4 times as far above its
	// live data. It was chosen by measuring, as the least with which large messages gain much.
	worth = 80 * time.Millisecond

	// memory is of how many collections the averages are.
	memory = 32

	// quiet is how long after a collection a program without another one counts as having little to do.
	quiet = 30 * time.Second

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
	bound    uint64
	percent  int // GOGC as it was set last
	previous int // GOGC before Set
	samples  [4]metrics.Sample
	quiet    *time.Timer // runs while GOGC is raised
	forgets  bool        // the next collection is the one that gives memory back

	// Averages are sums in which each collection weighs less than the next one.
	collections, live, allocated, used float64 // the last is CPU time, in seconds
	total                              struct{ allocated, used float64 }
}

// Set lets the heap grow up to about the given size before a collection, as far as that saves CPU time. If more than
// half of that is live data, Go's default applies: the heap may double. A bound below 4 MiB changes nothing, and 0
// means no floor.
//
// After each collection, the floor follows the program's needs: the square root of its live data and of what it
// allocates per second of its own CPU time. A busy server with small calls so uses a few MiB more than without a floor,
// and one with messages of 64 KiB some 20 MiB. If no collection comes for 30 seconds, the floor is removed and unused
// memory is given back to the operating system.
//
// Set uses debug.SetGCPercent, and calls it again after a collection if the floor or the amount of live data has
// changed. That is a setting of the whole process, so there can be only one floor. restore removes it and restores the
// setting. If GOGC is set in the environment, Set changes nothing and returns ErrGOGC. A memory limit (GOMEMLIMIT)
// still applies: near the limit, the runtime collects, however high the floor is. Without a limit, the bound is how
// much more memory the process may use.
//
// restore is never nil, and may be called more than once.
func Set(bound Size) (restore func(), err error) {
	restore = func() {}
	switch {
	case bound < 0:
		return restore, fmt.Errorf("a heap floor of %d bytes: want zero or more", int64(bound))
	case bound == 0:
		return restore, nil
	case os.Getenv("GOGC") != "":
		return restore, ErrGOGC
	}
	current.Lock()
	defer current.Unlock()
	if current.floor != nil {
		return restore, errors.New("a heap floor is set already")
	}
	f := &floor{bound: uint64(bound), percent: defaultPercent, previous: debug.SetGCPercent(defaultPercent)}
	for i, name := range []string{
		"/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes", "/gc/heap/allocs:bytes",
	} {
		f.samples[i].Name = name
	}
	f.quiet = time.AfterFunc(quiet, f.forget)
	f.quiet.Stop()
	f.read()
	current.floor = f
	f.arm()
	return f.restore, nil
}

func (f *floor) restore() {
	current.Lock()
	defer current.Unlock()
	if current.floor == f {
		f.quiet.Stop()
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
	if current.floor != f {
		return
	}
	live, roots, allocated, used := f.read()
	wanted := uint64(0)
	if f.forgets {
		f.forgets = false
	} else {
		wanted = f.want(float64(live+roots), allocated, used)
	}
	f.set(percent(wanted, live, roots))
	if f.percent > defaultPercent {
		f.quiet.Reset(quiet)
	} else {
		f.quiet.Stop()
	}
	f.arm()
}

// forget removes the floor until the program has more to do, and gives memory back.
func (f *floor) forget() {
	current.Lock()
	if current.floor != f {
		current.Unlock()
		return
	}
	f.collections, f.live, f.allocated, f.used = 0, 0, 0, 0
	f.forgets = true
	f.set(defaultPercent)
	current.Unlock()
	debug.FreeOSMemory() // it collects, too
}

// read returns how much live data there is, what a collection scans besides, and what was allocated since the last
// time, all in bytes, and how many seconds of CPU time were used since then.
func (f *floor) read() (live, roots uint64, allocated, used float64) {
	metrics.Read(f.samples[:])
	live = f.samples[0].Value.Uint64()
	roots = f.samples[1].Value.Uint64() + f.samples[2].Value.Uint64()
	before := f.total
	f.total.allocated = float64(f.samples[3].Value.Uint64())
	f.total.used = cpuTime().Seconds()
	return live, roots, f.total.allocated - before.allocated, f.total.used - before.used
}

// want notes what was so since the last collection and returns the floor that this is worth.
//
// A collection costs time in proportion to the live data L. Collections come the less often the more memory E there is
// above it. So the total of both costs is lowest where E is proportional to the square root of L times the rate of
// allocation: M. Kirisame et al., "Optimal Heap Limits for Reducing Browser Memory Use", OOPSLA 2022. The rate
// counts CPU time, because a program that waits saves nothing by collecting less often.
func (f *floor) want(live, allocated, used float64) uint64 {
	const keep = 1 - 1.0/memory
	f.collections = f.collections*keep + 1
	f.live = f.live*keep + live
	f.allocated = f.allocated*keep + allocated
	f.used = f.used*keep + used
	if f.used <= 0 {
		return 0 // the clock of CPU time can stand still for a few milliseconds
	}
	average := f.live / f.collections
	return min(f.bound, uint64(average+math.Sqrt(average*f.allocated/f.used*worth.Seconds())))
}

// set sets GOGC.
func (f *floor) set(percent int) {
	if percent != f.percent {
		f.percent = percent
		debug.SetGCPercent(percent)
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
