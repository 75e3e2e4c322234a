package heapfloor_test

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

const mib = 1 << 20

// TestMain starts the tests with Go's defaults, regardless of the environment. Child processes of TestEnvironment keep
// theirs.
func TestMain(m *testing.M) {
	if report := os.Getenv("HEAPFLOOR_REPORT"); report != "" {
		child(report)
		return
	}
	os.Unsetenv("GOGC")
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(1 << 62)
	os.Exit(m.Run())
}

func set(t *testing.T, floor heapfloor.Size) {
	t.Helper()
	restore, err := heapfloor.Set(floor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(restore)
}

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func goal() uint64    { return read("/gc/heap/goal:bytes") }
func percent() uint64 { return read("/gc/gogc:percent") }

var (
	sink []byte // keeps allocations from being optimized away
	live [][]byte
)

// hold keeps n MiB of live data until the test ends.
func hold(t *testing.T, n int) {
	t.Helper()
	for range n {
		live = append(live, make([]byte, mib))
	}
	t.Cleanup(func() { live = nil })
}

// churn allocates n MiB of garbage and returns the number of collections meanwhile.
func churn(n int) uint32 {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n * 16 {
		sink = make([]byte, mib/16)
	}
	runtime.ReadMemStats(&after)
	return after.NumGC - before.NumGC
}

func TestFewerCollections(t *testing.T) {
	const garbage = 1024
	without := churn(garbage)
	set(t, 256*mib)
	churn(garbage)
	with := churn(garbage)
	if with*3 > without {
		t.Errorf("%d MiB of garbage took %d collections without a floor and %d with one", garbage, without, with)
	}
}

// churnUntil makes garbage until something is so: the floor follows shortly after a collection, and what else is live
// differs from one to the next.
func churnUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); churn(32) {
		if time.Now().After(deadline) {
			t.Fatalf("the heap may grow to %d bytes and GOGC is %d, want %s", goal(), percent(), what)
		}
	}
}

func isRaised() bool { p := percent(); return p != 100 && p != 250 }

func isFrom(from, to uint64) func() bool {
	return func() bool { g := goal(); return from*mib <= g && g <= to*mib }
}

// TestBound checks that the floor rises to its bound and not above it, and that a heap that needs more may double.
func TestBound(t *testing.T) {
	set(t, 16*mib)
	hold(t, 3) // would be worth a floor of some 60 MiB
	churn(1024)
	churnUntil(t, "the bound of 16 MiB", isFrom(15, 17))
	hold(t, 27)
	churnUntil(t, "30 MiB to double", func() bool { return isFrom(58, 66)() && percent() == 100 })
	live = nil
	churnUntil(t, "the bound of 16 MiB", isFrom(15, 17))
}

// TestSpeed checks that a program that computes much and allocates little has no floor.
func TestSpeed(t *testing.T) {
	set(t, 256*mib)
	block := make([]byte, mib)
	for range 512 {
		sha512.Sum512(block)
		sink = make([]byte, mib/32)
	}
	if p := percent(); p != 100 {
		t.Errorf("GOGC is %d in a program that allocates little, want 100", p)
	}
}

// TestQuiet checks that a program that has nothing to do any more gives the memory back, and collects no more then.
func TestQuiet(t *testing.T) {
	set(t, 256*mib)
	hold(t, 16)
	churnUntil(t, "a floor, and its memory", func() bool { return isRaised() && held() > 32*mib })
	live = nil
	for deadline := time.Now().Add(time.Minute); percent() != 100 || held() > 16*mib; {
		<-time.After(100 * time.Millisecond) // less of it delays what is waited for
		if time.Now().After(deadline) {
			t.Fatalf("GOGC is %d and the heap has %d bytes after a minute without garbage", percent(), held())
		}
	}
	hold(t, 16)
	churnUntil(t, "a floor for later garbage", isRaised)
}

// held returns how much memory the heap has from the operating system.
func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}

// TestEveryCollection checks that many collections leave no goroutines behind.
func TestEveryCollection(t *testing.T) {
	set(t, 64*mib)
	before := runtime.NumGoroutine()
	for range 60 {
		runtime.GC()
	}
	// The runtime has goroutines that run cleanups.
	if after := runtime.NumGoroutine(); after > before+runtime.GOMAXPROCS(0) {
		t.Errorf("%d goroutines after 60 collections, %d before", after, before)
	}
}

func TestSmallFloors(t *testing.T) {
	for _, floor := range []heapfloor.Size{0, 1, 4 * mib} {
		restore, err := heapfloor.Set(floor)
		if err != nil {
			t.Fatal(err)
		}
		churn(64)
		if p := percent(); p != 100 {
			t.Errorf("GOGC is %d with a floor of %d bytes, want 100", p, floor)
		}
		restore()
	}
}

func TestHugeFloor(t *testing.T) {
	set(t, math.MaxInt64)
	hold(t, 16)
	churnUntil(t, "what the garbage is worth", func() bool { return isFrom(40, 2048)() && isRaised() })
}

func TestRestore(t *testing.T) {
	debug.SetGCPercent(250)
	t.Cleanup(func() { debug.SetGCPercent(100) })
	restore, err := heapfloor.Set(64 * mib)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := heapfloor.Set(8 * mib); err == nil {
		t.Error("a second floor was set while the first was in use")
	}
	hold(t, 16)
	churnUntil(t, "a floor", isRaised)
	restore()
	churn(1024)
	if p := percent(); p != 250 {
		t.Errorf("GOGC is %d after restore, want 250 as before", p)
	}
	set(t, 64*mib)
	restore() // it belongs to the first floor and must not change this one
	churnUntil(t, "the second floor", isRaised)
}

func TestNegative(t *testing.T) {
	if _, err := heapfloor.Set(-1); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("a negative floor gave the error %v, want one that names it", err)
	}
}

// child sets a floor and prints the result. It runs in a process with an environment of its own.
func child(floor string) {
	var size heapfloor.Size
	if err := size.Set(floor); err != nil {
		panic(err)
	}
	_, err := heapfloor.Set(size)
	live = append(live, make([]byte, 16*mib))
	collections := churn(1024)
	for range 20 { // on a busy machine, it may take a while until a floor is worth its memory
		if err != nil || percent() > 100 {
			break
		}
		churn(1024)
	}
	fmt.Println(errors.Is(err, heapfloor.ErrGOGC), percent(), collections)
}

func TestEnvironment(t *testing.T) {
	collections := map[string]int{}
	for _, c := range []struct {
		env      string
		refused  bool
		from, to uint64 // GOGC
	}{
		{"GOGC=", false, 101, math.MaxInt32},
		{"GOGC=50", true, 50, 50},
		{"GOGC=100", true, 100, 100},
		{"GOGC=off", true, math.MaxUint64, math.MaxUint64},
		{"GOMEMLIMIT=32MiB", false, 100, math.MaxInt32}, // so many collections may find that no floor is worth it
		{"GOMEMLIMIT=8GiB", false, 101, math.MaxInt32},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HEAPFLOOR_REPORT=1GiB", c.env)
		out, err := cmd.Output()
		var (
			refused bool
			percent uint64
			n       int
		)
		if _, scan := fmt.Sscan(string(out), &refused, &percent, &n); err != nil || scan != nil {
			t.Fatalf("with %s, the process printed %q: %v %v", c.env, out, err, scan)
		}
		collections[c.env] = n
		if refused != c.refused || percent < c.from || percent > c.to {
			t.Errorf("with %s: refused %t, GOGC %d; want %t, %d to %d",
				c.env, refused, percent, c.refused, c.from, c.to)
		}
	}
	if floor, limit := collections["GOGC="], collections["GOMEMLIMIT=32MiB"]; limit <= floor {
		t.Errorf("%d collections with a memory limit of 32 MiB, want more than the %d without one", limit, floor)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]struct {
		bytes heapfloor.Size
		text  string
	}{
		"0":        {0, "0"},
		"0MiB":     {0, "0"},
		"1":        {1, "1B"},
		"1500B":    {1500, "1500B"},
		"64MiB":    {64 << 20, "64MiB"},
		"67108864": {64 << 20, "64MiB"},
		"1536KiB":  {1536 << 10, "1536KiB"},
		"2048MiB":  {2 << 30, "2GiB"},
		"1TiB":     {1 << 40, "1TiB"},
	} {
		var s heapfloor.Size
		if err := s.Set(text); err != nil || s != want.bytes || s.String() != want.text {
			t.Errorf("%q is %d, %q, %v; want %d, %q", text, s, s.String(), err, want.bytes, want.text)
		}
	}
	for _, text := range []string{
		"", "MiB", "-1", "+1", "64MB", "64M", "64 MiB", "1.5GiB", "0x10", "64mib",
		"9223372036854775808", "8388608TiB", "18014398509481984KiB",
	} {
		s := heapfloor.Size(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("%q was parsed to %d, want an error", text, s)
		}
	}
}
