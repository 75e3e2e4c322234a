package wire

import (
	"math"
	"math/bits"
	"time"
)

// callSet is a set of stream ids, a bit each, because they may stay for long: ttrpc tells nobody of a call that was
// cancelled, so a client's connection takes it for open until the server answers it. The zero value is empty.
type callSet struct {
	n     int
	words map[uint32]callWord // for 64 ids each
	many  int                 // the number of words from which expired looks at them
}

// callWord is never without bits.
type callWord struct {
	bits  uint64
	until time.Duration // clock when nobody waits any more for any of the calls
}

// forever is for calls without a deadline.
const forever = time.Duration(math.MaxInt64)

func (s *callSet) has(id uint32) bool { return s.words[id/64].bits&(1<<(id%64)) != 0 }

func (s *callSet) add(id uint32, until time.Duration) {
	if s.words == nil {
		s.words = make(map[uint32]callWord)
	}
	word, ok := s.words[id/64]
	if ok {
		until = max(until, word.until)
	}
	if bit := uint64(1) << (id % 64); word.bits&bit == 0 {
		s.words[id/64] = callWord{word.bits | bit, until}
		s.n++
	}
}

func (s *callSet) remove(id uint32) {
	word := s.words[id/64]
	bit := uint64(1) << (id % 64)
	switch word.bits & bit {
	case 0:
		return
	case word.bits:
		delete(s.words, id/64)
	default:
		word.bits &^= bit
		s.words[id/64] = word
	}
	s.n--
}

// all returns the ids in s.
func (s *callSet) all() []uint32 { return s.expired(forever) }

// expired returns ids for which nobody waits any more. It looks when there are twice as many words as were left the
// last time, so that it costs next to nothing.
func (s *callSet) expired(now time.Duration) []uint32 {
	if len(s.words) < s.many && now < forever {
		return nil
	}
	var ids []uint32
	left := 0
	for i, word := range s.words {
		if word.until > now {
			left++
			continue
		}
		for b := word.bits; b != 0; b &= b - 1 {
			ids = append(ids, i*64+uint32(bits.TrailingZeros64(b)))
		}
	}
	s.many = 2 * max(left, 32)
	return ids
}
