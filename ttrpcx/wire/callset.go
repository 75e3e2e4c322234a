package wire

import "math/bits"

// callSet is a set of stream ids. Each costs a bit or two, because they may stay for long: ttrpc tells nobody of a call
// that was cancelled, so a client's connection takes it for open until the server answers it.
type callSet struct {
	n      int
	word   uint32            // which word latest is
	latest uint64            // the word that was added to last; ids increase, so it is the one that is mostly asked for
	older  map[uint32]uint64 // the other words, by their number, if not empty
}

// place returns the number of the word and the bit in it that stand for id.
func place(id uint32) (word uint32, bit uint64) { return id / 64, 1 << (id % 64) }

func (s *callSet) has(id uint32) bool {
	word, bit := place(id)
	if word == s.word {
		return s.latest&bit != 0
	}
	return s.older[word]&bit != 0
}

func (s *callSet) add(id uint32) {
	word, bit := place(id)
	if word != s.word {
		if s.older == nil {
			s.older = make(map[uint32]uint64)
		}
		if s.latest != 0 {
			s.older[s.word] = s.latest
		}
		s.word, s.latest = word, s.older[word]
		delete(s.older, word)
	}
	if s.latest&bit == 0 {
		s.latest |= bit
		s.n++
	}
}

func (s *callSet) remove(id uint32) {
	if !s.has(id) {
		return
	}
	s.n--
	word, bit := place(id)
	if word == s.word {
		s.latest &^= bit
	} else if left := s.older[word] &^ bit; left != 0 {
		s.older[word] = left
	} else {
		delete(s.older, word)
	}
}

// all returns the ids in s.
func (s *callSet) all() []uint32 {
	ids := make([]uint32, 0, s.n)
	list := func(word uint32, set uint64) {
		for ; set != 0; set &= set - 1 {
			ids = append(ids, word*64+uint32(bits.TrailingZeros64(set)))
		}
	}
	for word, set := range s.older {
		list(word, set)
	}
	list(s.word, s.latest)
	return ids
}
