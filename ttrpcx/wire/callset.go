package wire

import "math/bits"

// callSet is a set of stream ids, a bit each, because they may stay for long: ttrpc tells nobody of a call that was
// cancelled, so a client's connection takes it for open until the server answers it. The zero value is empty.
type callSet struct {
	n     int
	words map[uint32]uint64 // for 64 ids each; none is zero
}

func (s *callSet) has(id uint32) bool { return s.words[id/64]&(1<<(id%64)) != 0 }

func (s *callSet) add(id uint32) {
	if s.words == nil {
		s.words = make(map[uint32]uint64)
	}
	word := s.words[id/64]
	if bit := uint64(1) << (id % 64); word&bit == 0 {
		s.words[id/64] = word | bit
		s.n++
	}
}

func (s *callSet) remove(id uint32) {
	word := s.words[id/64]
	bit := uint64(1) << (id % 64)
	switch word & bit {
	case 0:
		return
	case word:
		delete(s.words, id/64)
	default:
		s.words[id/64] = word &^ bit
	}
	s.n--
}

// all returns the ids in s.
func (s *callSet) all() []uint32 {
	ids := make([]uint32, 0, s.n)
	for i, word := range s.words {
		for ; word != 0; word &= word - 1 {
			ids = append(ids, i*64+uint32(bits.TrailingZeros64(word)))
		}
	}
	return ids
}
