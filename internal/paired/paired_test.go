package paired_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"example.com/ttrpc-starter/internal/paired"
)

func TestRound(t *testing.T) {
	turns := slices.Collect(paired.Round(5))
	back := slices.Clone(turns[5:])
	slices.Reverse(back)
	if !slices.Equal(turns[:5], back) || !slices.Equal(slices.Sorted(slices.Values(back)), []int{0, 1, 2, 3, 4}) {
		t.Errorf("the turns are %v, want all of five forwards and backwards", turns)
	}
	for range paired.Round(5) {
		break // must not go on
	}
}

// TestInterval checks that the interval has the median of what the values are drawn from about as often as it says,
// though one value in ten is far out.
func TestInterval(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	const runs = 400
	hits := 0
	for range runs {
		values := make([]float64, 40)
		for i := range values {
			values[i] = 1 + random.NormFloat64()/10
			if random.IntN(10) == 0 {
				values[i] *= 1 + random.NormFloat64()
			}
		}
		low, high := paired.Interval(values)
		if m := paired.Median(values); m < low || m > high {
			t.Fatalf("the median %v is not from %v to %v", m, low, high)
		}
		if low <= 1 && 1 <= high {
			hits++
		}
	}
	if share := float64(hits) / runs; share < 0.90 || share > 0.99 {
		t.Errorf("%v of the intervals have the true median, want about 0.95", share)
	}
}
