package wire

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// errMalformed is returned for a payload that is not a ttrpc.Request.
var errMalformed = errors.New("request is malformed")

// Field numbers of ttrpc.Request.
const (
	fieldService  = 1
	fieldMethod   = 2
	fieldMetadata = 5
)

// requestParser reads a ttrpc.Request as its bytes arrive and keeps nothing of it but the numbers of the two names. It
// accepts all that proto.Unmarshal accepts, save groups, which proto3 does not have and no ttrpc peer sends. It does not
// check that metadata is UTF-8: ttrpc does, and answers with an error.
type requestParser struct {
	methods *methods
	left    int    // bytes of the fields that are still to come
	inner   int    // bytes of the fields of a KeyValue that are still to come, which are also in left
	skip    int    // bytes of the latest field that are still to come
	part    []byte // the start of a field, as far as it came
	service uint32
	method  uint32
}

// reset prepares p for a request of n bytes.
func (p *requestParser) reset(n int) {
	*p = requestParser{methods: p.methods, left: n, part: p.part[:0]}
}

// kind returns the kind of the method that was asked for.
func (p *requestParser) kind() kind {
	if p.service == 0 || p.method == 0 {
		return unary
	}
	return p.methods.streams[[2]uint32{p.service, p.method}]
}

// feed reads the next bytes. It must not be given more than reset announced.
func (p *requestParser) feed(b []byte) error {
	for {
		n := min(p.skip, len(b))
		p.skip -= n
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		field := b
		if len(p.part) > 0 {
			field = append(p.part, b[:min(len(b), 2*maxVarint+p.methods.longest)]...)
		}
		n, ok := p.field(field)
		switch {
		case !ok:
			return errMalformed
		case n == 0:
			p.part = append(p.part[:0], field...)
			return nil
		}
		b = b[n-len(p.part):]
		p.part = p.part[:0]
	}
}

// finish reports whether the request was whole.
func (p *requestParser) finish() error {
	if p.left > 0 {
		return errMalformed
	}
	return nil
}

// maxVarint is the length in bytes of the longest varint, of which a field has up to two before its value.
const maxVarint = 10

// field reads the start of a field, up to its value or, of a name that may be known, to its end. It returns the length of
// that, or 0 if b ends before.
func (p *requestParser) field(b []byte) (n int, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	var value uint64
	if n > 0 && (typ == protowire.VarintType || typ == protowire.BytesType) {
		var m int
		if value, m = protowire.ConsumeVarint(b[n:]); m < 0 {
			n = m
		} else {
			n += m
		}
	}
	if n < 0 {
		return 0, n == truncated
	}
	skip := 0
	switch typ {
	case protowire.VarintType:
	case protowire.Fixed32Type:
		skip = 4
	case protowire.Fixed64Type:
		skip = 8
	case protowire.BytesType:
		if value > uint64(p.left) {
			return 0, false
		}
		skip = int(value)
	default:
		return 0, false
	}
	inner := 0
	switch {
	case p.inner > 0:
		inner = p.inner - n - skip
	case typ != protowire.BytesType:
	case num == fieldMetadata:
		inner, skip = skip, 0
	case num == fieldService || num == fieldMethod:
		var name []byte
		if skip <= p.methods.longest {
			if len(b) < n+skip {
				return 0, true
			}
			name = b[n : n+skip]
			n, skip = n+skip, 0
		}
		if !p.named(num, name) {
			return 0, false
		}
	}
	p.left -= n + skip
	p.inner, p.skip = inner, skip
	return n, p.left >= 0 && inner >= 0 && inner <= p.left
}

// truncated is what protowire returns for bytes that end too early.
var truncated = func() int { _, n := protowire.ConsumeVarint(nil); return n }()

// named takes one of the two names, nil for one that is longer than all known ones. As in protobuf, the last one counts.
func (p *requestParser) named(num protowire.Number, name []byte) bool {
	number := p.methods.names[string(name)]
	if num == fieldService {
		p.service = number
	} else {
		p.method = number
	}
	return number > 0 || utf8.Valid(name)
}
