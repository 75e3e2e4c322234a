package wire

// tracker follows a byte stream from frame to frame without keeping the payloads.
type tracker struct {
	head [HeaderSize]byte // the start of a header that is not complete yet
	have int              // bytes in head
	left int              // bytes of the current payload that are still to come
}

// next skips what is left of the current payload and reads the header after it. rest is what follows the header in b.
// ok is false if b ended first; the next call takes up from there.
func (t *tracker) next(b []byte) (h Header, rest []byte, ok bool) {
	skip := min(t.left, len(b))
	t.left -= skip
	b = b[skip:]
	if t.have > 0 || len(b) < HeaderSize {
		n := copy(t.head[t.have:], b)
		t.have += n
		b = b[n:]
		if h, ok = ParseHeader(t.head[:t.have]); !ok {
			return Header{}, nil, false
		}
		t.have = 0
	} else {
		h, _ = ParseHeader(b)
		b = b[HeaderSize:]
	}
	t.left = int(h.Length)
	return h, b, true
}

// atBoundary reports whether the stream so far ends with a whole frame.
func (t *tracker) atBoundary() bool {
	return t.left == 0 && t.have == 0
}

// closes reports whether a server that sends h sends no more on the stream.
func (h Header) closes() bool {
	return h.Type == TypeResponse || h.Type == TypeData && h.Flags&FlagRemoteClosed != 0
}
