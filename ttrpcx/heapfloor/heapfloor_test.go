package heapfloor_test

import (
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

// waitForGoal waits until the heap may grow to a size between from and to, in MiB: cleanups run shortly after a
// collection. Each attempt starts with a collection, because the stacks and the garbage of other goroutines can change
// the goal.
func waitForGoal(t *testing.T, from, to uint64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		runtime.GC()
		for range 100 {
			if g := goal(); from*mib <= g && g <= to*mib {
				return
			}
			runtime.Gosched()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the heap may grow to %d bytes (GOGC=%d), want %d to %d MiB", goal(), percent(), from, to)
		}
	}
}

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
	with := churn(garbage)
	// A collection starts at 70 % of the goal or later; without the floor, the goal is 4 MiB.
	if with > 8 || without <= with {
		t.Errorf("%d MiB of garbage took %d collections without and %d with a floor of 256 MiB", garbage, without, with)
	}
}

// TestGoal checks the goal of a heap that grows over the floor and shrinks again.
func TestGoal(t *testing.T) {
	set(t, 64*mib)
	if g := goal(); g < 60*mib {
		t.Errorf("before the first collection the heap may grow to %d bytes, want the floor of 64 MiB", g)
	}
	waitForGoal(t, 60, 66)
	hold(t, 10)
	waitForGoal(t, 60, 66)
	hold(t, 15)
	waitForGoal(t, 60, 66)
	hold(t, 25) // 50 in all, which may double to more than the floor
	waitForGoal(t, 100, 110)
	hold(t, 50)
	waitForGoal(t, 200, 220)
	if p := percent(); p != 100 {
		t.Errorf("GOGC is %d with more live data than the floor, want 100", p)
	}
	live = nil
	waitForGoal(t, 60, 66)
}

// TestEveryCollection checks that the floor still works after many collections, and that they leave no goroutines
// behind.
func TestEveryCollection(t *testing.T) {
	set(t, 64*mib)
	waitForGoal(t, 60, 66)
	before := runtime.NumGoroutine()
	for range 30 {
		hold(t, 40)
		waitForGoal(t, 80, 90)
		live = nil
		waitForGoal(t, 60, 66)
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
		waitForGoal(t, 4, 5)
		if p := percent(); p != 100 {
			t.Errorf("GOGC is %d with a floor of %d bytes, want 100", p, floor)
		}
		restore()
	}
}

func TestHugeFloor(t *testing.T) {
	set(t, 1<<62)
	runtime.GC()
	if g := goal(); g < 1<<40 {
		t.Errorf("the heap may grow to %d bytes, want at least 1 TiB", g)
	}
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
	waitForGoal(t, 60, 66)
	restore()
	if p := percent(); p != 250 {
		t.Errorf("GOGC is %d after restore, want 250 as before", p)
	}
	for range 10 {
		waitForGoal(t, 10, 12) // 4 MiB at GOGC=250
	}
	set(t, 32*mib)
	restore() // it belongs to the first floor and must not change this one
	waitForGoal(t, 30, 34)
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
	gogc := percent()
	fmt.Println(errors.Is(err, heapfloor.ErrGOGC), gogc, churn(512))
}

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		env      string
		percent  uint64
		refused  bool
		collects bool
	}{
		{"GOGC=", 25600, false, false}, // 1 GiB is 256 times 4 MiB
		{"GOGC=50", 50, true, true},
		{"GOGC=100", 100, true, true},
		{"GOGC=off", math.MaxUint64, true, false},
		{"GOMEMLIMIT=32MiB", 25600, false, true},
		{"GOMEMLIMIT=8GiB", 25600, false, false},
	} {
		t.Run(c.env, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "HEAPFLOOR_REPORT=1GiB", c.env)
			out, err := cmd.Output()
			var (
				refused     bool
				percent     uint64
				collections int
			)
			if _, scan := fmt.Sscan(string(out), &refused, &percent, &collections); err != nil || scan != nil {
				t.Fatalf("the process printed %q: %v %v", out, err, scan)
			}
			if refused != c.refused || percent != c.percent || (collections > 0) != c.collects {
				t.Errorf("refused %t, GOGC %d, %d collections; want %t, %d, some %t",
					refused, percent, collections, c.refused, c.percent, c.collects)
			}
		})
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
