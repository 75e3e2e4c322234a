package heapfloor

import (
	"errors"
	"strconv"
	"strings"
)

// Size is a number of bytes, and a flag.Value. Its text has the form of GOMEMLIMIT: a whole number, followed by B, KiB,
// MiB, GiB or TiB. Without a unit, the number is in bytes.
type Size int64

// units are sorted: String uses the first one that fits.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String returns the size in the largest unit that needs no fraction.
func (s *Size) String() string {
	for _, u := range units {
		if n := int64(*s); n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return "0"
}

// Set parses a size.
func (s *Size) Set(text string) error {
	number, scale := text, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, scale = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || int64(n)*scale/scale != int64(n) {
		return errors.New("want a size such as 64MiB, or a whole number of bytes")
	}
	*s = Size(int64(n) * scale)
	return nil
}
