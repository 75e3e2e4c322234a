package wire

import (
	"errors"
	"unicode/utf8"
)

// errMalformed is returned for a payload that is not a ttrpc.Request.
var errMalformed = errors.New("request is malformed")

// Field numbers of ttrpc.Request.
const (
	fieldService  = 1
	fieldMethod   = 2
	fieldMetadata = 5
)

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// maxFieldNumber is protobuf's highest field number.
const maxFieldNumber = 1<<29 - 1

// requestState is the part of a field that comes next.
type requestState uint8

const (
	atTag requestState = iota
	atVarint
	atLength
	inValue // of a known length
	inText  // the same, and the bytes are a string
)

// requestParser reads a ttrpc.Request as its bytes arrive and keeps nothing of it but the numbers of the two names. It
// accepts what proto.Unmarshal accepts, save groups, which proto3 does not have and no ttrpc peer sends.
type requestParser struct {
	methods *methods

	state    requestState
	nested   bool // inside a KeyValue
	shift    uint8
	field    uint32
	varint   uint64
	left     int // bytes of the current value to come
	end      int // bytes of the current message to come: of the KeyValue if nested, else of the request
	outer    int // bytes of the request that come after the KeyValue
	text     textCheck
	name     []byte // the start of a name that came in pieces
	service  uint32
	method   uint32
	overlong bool // the name that came in pieces is longer than any that is known
}

// reset prepares p for a request of n bytes.
func (p *requestParser) reset(n int) {
	*p = requestParser{methods: p.methods, end: n}
}

// kind returns the kind of the method that was asked for.
func (p *requestParser) kind() kind {
	if p.service == 0 || p.method == 0 {
		return unary
	}
	return p.methods.streams[[2]uint32{p.service, p.method}]
}

// finish reports whether the request was whole.
func (p *requestParser) finish() error {
	p.leave()
	if p.state != atTag || p.shift > 0 || p.nested || p.end > 0 {
		return errMalformed
	}
	return nil
}

// leave ends the KeyValue if all of it was read.
func (p *requestParser) leave() {
	if p.nested && p.end == 0 && p.state == atTag && p.shift == 0 {
		p.nested, p.end = false, p.outer
	}
}

// feed reads the next bytes. It must not be given more than reset announced.
func (p *requestParser) feed(b []byte) error {
	for len(b) > 0 {
		p.leave()
		switch p.state {
		case inValue, inText:
			n := min(p.left, len(b))
			if !p.value(b[:n]) {
				return errMalformed
			}
			b = b[n:]
		default:
			if p.end == 0 {
				return errMalformed // a varint runs over the end of its KeyValue
			}
			c := b[0]
			b = b[1:]
			p.end--
			v := uint64(c)
			if c >= 0x80 || p.shift > 0 {
				if p.shift == 63 && c > 1 {
					return errMalformed // more than 64 bits
				}
				p.varint |= uint64(c&0x7f) << p.shift
				p.shift += 7
				if c >= 0x80 {
					continue
				}
				v = p.varint
				p.varint, p.shift = 0, 0
			}
			if !p.number(v) {
				return errMalformed
			}
		}
	}
	return nil
}

// number takes a whole varint: a tag, a length or a value.
func (p *requestParser) number(v uint64) bool {
	switch p.state {
	case atVarint:
		p.state = atTag
		return true
	case atLength:
		if v > uint64(p.end) {
			return false
		}
		return p.enter(int(v))
	}

	if v>>3 == 0 || v>>3 > maxFieldNumber {
		return false
	}
	p.field = uint32(v >> 3)
	switch v & 7 {
	case wireVarint:
		p.state = atVarint
		return true
	case wireBytes:
		p.state = atLength
		return true
	case wireFixed64:
		return p.fixed(8)
	case wireFixed32:
		return p.fixed(4)
	}
	return false
}

// fixed begins a value of n bytes that nobody looks at.
func (p *requestParser) fixed(n int) bool {
	p.state, p.left = inValue, n
	return n <= p.end
}

// enter begins a length-delimited value of n bytes.
func (p *requestParser) enter(n int) bool {
	p.state, p.left = inValue, n
	switch {
	case p.field == fieldService, p.field == fieldMethod: // and a KeyValue's key and value, which have the same numbers
		p.state = inText
	case !p.nested && p.field == fieldMetadata:
		p.state, p.nested = atTag, true
		p.outer, p.end = p.end-n, n
		return true
	}
	if n == 0 {
		return p.value(nil)
	}
	return true
}

// value takes the next bytes of the current value.
func (p *requestParser) value(b []byte) bool {
	p.left -= len(b)
	p.end -= len(b)
	done := p.left == 0
	if p.state == inText {
		known := !p.nested && p.named(b, done)
		if !known && !p.text.feed(b, done) {
			return false
		}
	}
	if done {
		p.state = atTag
	}
	return true
}

// named takes the next bytes of the service's or the method's name. The last one of each counts, as in protobuf. It
// reports whether b is a whole name that is known, and so needs no further check.
func (p *requestParser) named(b []byte, done bool) bool {
	whole := done && len(p.name) == 0 && !p.overlong
	if !whole {
		if p.overlong = p.overlong || len(p.name)+len(b) > p.methods.longest; !p.overlong {
			p.name = append(p.name, b...)
		}
		if !done {
			return false
		}
		b = p.name
		if p.overlong {
			b = nil
		}
		p.name, p.overlong = p.name[:0], false
	}
	number := p.methods.names[string(b)]
	if p.field == fieldService {
		p.service = number
	} else {
		p.method = number
	}
	return whole && number > 0
}

// textCheck tells whether a string that comes in pieces is UTF-8.
type textCheck struct {
	tail [utf8.UTFMax]byte // the start of a character whose rest is to come
	n    uint8
}

// feed takes the next piece and reports whether all is well so far, or altogether if it is the last piece.
func (t *textCheck) feed(b []byte, last bool) bool {
	for t.n > 0 && len(b) > 0 {
		t.tail[t.n] = b[0]
		t.n++
		b = b[1:]
		if utf8.FullRune(t.tail[:t.n]) {
			if !utf8.Valid(t.tail[:t.n]) {
				return false
			}
			t.n = 0
		}
	}
	if !last {
		for i := max(len(b)-utf8.UTFMax+1, 0); i < len(b); i++ {
			if utf8.RuneStart(b[i]) && !utf8.FullRune(b[i:]) {
				t.n = uint8(copy(t.tail[:], b[i:]))
				b = b[:i]
				break
			}
		}
	}
	return utf8.Valid(b) && (!last || t.n == 0)
}
