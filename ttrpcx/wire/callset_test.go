package wire

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCallSet compares a callSet with a map while calls come and go as a client's do, a few of which stay for long.
func TestCallSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s callSet
	want := make(map[uint32]bool)
	for id := uint32(1); id < 20_000; id += 2 {
		s.add(id, forever)
		want[id] = true
		for gone := range want {
			if rng.IntN(50) > 0 || gone%1000 == 1 {
				s.remove(gone)
				delete(want, gone)
				s.remove(gone)
			}
			if s.has(gone) != want[gone] {
				t.Fatalf("has %d: %v", gone, s.has(gone))
			}
			break
		}
		if s.n != len(want) {
			t.Fatalf("n is %d, want %d", s.n, len(want))
		}
	}
	if got := slices.Sorted(slices.Values(s.all())); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("got %d ids, want %d", len(got), len(want))
	}
	for id := range want {
		s.remove(id)
	}
	if s.n != 0 || len(s.words) != 0 {
		t.Errorf("%+v is left of an empty set", s)
	}
}
