// Package paired compares things that are measured in turns, so that what else the machine does hits all alike.
package paired

import (
	"iter"
	"math/rand/v2"
	"slices"
)

// Round returns the order in which n things take their turns in one round: random, because one that comes twice in a
// row is faster the second time, and then the same backwards, so that a drift hits all alike.
func Round(n int) iter.Seq[int] {
	order := rand.Perm(n)
	return func(yield func(int) bool) {
		for _, turns := range []iter.Seq2[int, int]{slices.All(order), slices.Backward(order)} {
			for _, i := range turns {
				if !yield(i) {
					return
				}
			}
		}
	}
}

// Median returns the median of values, of which there must be one at least.
func Median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

// Interval returns the 95 % interval of the values' median, from a bootstrap: B. Efron, "Bootstrap Methods: Another
// Look at the Jackknife", The Annals of Statistics 7, 1979.
func Interval(values []float64) (low, high float64) {
	random := rand.New(rand.NewPCG(1, 1))
	medians, sample := make([]float64, 2000), make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = Median(sample)
	}
	slices.Sort(medians)
	tail := len(medians) / 40
	return medians[tail], medians[len(medians)-1-tail]
}
