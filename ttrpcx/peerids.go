package ttrpcx

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
)

// In a user namespace, the kernel shows one id, the overflow id, in place of each one that has no number there:
// user_namespaces(7). Nobody is known by that id. It is -1 where every id has a number.
var (
	overflowUID = sync.OnceValue(func() int64 { return overflowID("uid") })
	overflowGID = sync.OnceValue(func() int64 { return overflowID("gid") })
)

func overflowID(kind string) int64 {
	id := int64(65534) // the kernel's default; without /proc, be careful
	text, err := os.ReadFile("/proc/sys/kernel/overflow" + kind)
	if runtime.GOOS != "linux" {
		return -1
	} else if err == nil {
		_, _ = fmt.Sscan(string(text), &id)
		ids, err := os.ReadFile("/proc/self/" + kind + "_map")
		if errors.Is(err, fs.ErrNotExist) || err == nil && mapsAll(string(ids)) { // a kernel without namespaces
			return -1
		}
	}
	return id
}

// mapsAll reports whether the text of a uid_map or gid_map has all ids. The largest number is none.
func mapsAll(text string) bool {
	var all uint64
	for line := range strings.Lines(text) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return false
		}
		all += count
	}
	return all >= math.MaxUint32
}
