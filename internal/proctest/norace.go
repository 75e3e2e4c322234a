//go:build !race

package proctest

// Race tells whether the test has the race detector. Programs that Build builds then have it, too.
const Race = false
