package main

import (
	"testing"
)

// method measures contenders that are all of the same program, and returns the one row of ours.
func method(t *testing.T, bin string, flags ...string) row {
	t.Helper()
	all := []contender{
		{name: ours, server: "ours", flags: flags},
		{name: stock, server: "ours"},
		{name: control, server: "ours"},
	}
	if _, err := build(t.Context(), bin, all); err != nil {
		t.Fatal(err)
	}
	rows, _, err := suite{rounds: 40}.cell(t.Context(), bin, calls(0, 128), all)
	if err != nil {
		t.Fatal(err)
	}
	return rows[0]
}

// attempts is how often a machine with other things to do may hide what is to be seen.
const attempts = 5

// TestSlowCopyIsSeen checks that the benchmark sees 2 µs more for each frame, which are a fifth of a call's CPU time or
// less.
func TestSlowCopyIsSeen(t *testing.T) {
	bin := t.TempDir()
	for range attempts {
		r := method(t, bin, "-slow=2us")
		t.Logf("calls of the slow copy: %s", loadColumns[1].text(r))
		if r.values["x-ttrpc-high"] < 1 {
			return
		}
	}
	t.Error("the slow copy does not look slower than itself")
}

// TestRunsAgree checks that two runs of the same agree within their intervals, and that each has 1.
func TestRunsAgree(t *testing.T) {
	bin := t.TempDir()
	for range attempts {
		a, b := method(t, bin), method(t, bin)
		t.Logf("calls of the same program: %s and %s", loadColumns[1].text(a), loadColumns[1].text(b))
		low, high := "x-ttrpc-low", "x-ttrpc-high"
		if a.values[low] <= b.values[high] && b.values[low] <= a.values[high] &&
			max(a.values[low], b.values[low]) <= 1 && min(a.values[high], b.values[high]) >= 1 {
			return
		}
	}
	t.Error("two runs of the same program do not agree")
}
