//go:build !race

package proctest

// Race tells whether the test, and so what Build builds, has the race detector.
const Race = false
