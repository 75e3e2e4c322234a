// Package floor keeps the garbage collector from running while the heap is small.
package floor

import "runtime/debug"

// Set is a stand-in.
func Set(bytes int64) {
	if bytes > 0 {
		debug.SetGCPercent(int(bytes / (4 << 20) * 100))
	}
}
