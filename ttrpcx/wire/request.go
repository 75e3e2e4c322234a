package wire

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// errMalformed is returned for a payload that is not a ttrpc.Request.
var errMalformed = errors.New("request is malformed")

// errMetadata is returned for a request with more metadata than is allowed. Its call ends with it.
var errMetadata = status.Error(codes.ResourceExhausted, fmt.Sprintf(
	"metadata is over the limit of %d bytes, of which each entry takes %d and its text", maxMetadata, entryCost))

const (
	// Field numbers of ttrpc.Request.
	fieldService  = 1
	fieldMethod   = 2
	fieldMetadata = 5

	// maxName is the length in bytes of the longest name that is taken for a service's or a method's.
	maxName = 512

	// maxMetadata bounds a request's metadata in bytes, and entryCost is what each entry counts in addition to its
	// text, as in HTTP/2: SETTINGS_MAX_HEADER_LIST_SIZE in RFC 9113, section 6.5.2. The bound is what gRPC's servers
	// have by default. entryCopies is how often that is in memory: an entry takes about 250 bytes in ttrpc, however
	// short it is.
	maxMetadata = 8 << 10
	entryCost   = 32
	entryCopies = 8

	// maxStart is the length in bytes of what may come before a field's value: two of the longest varints.
	maxStart = 20
)

// requestParser reads a ttrpc.Request as its bytes arrive and keeps nothing of it but the two names. It accepts all
// that proto.Unmarshal accepts, save groups, which proto3 does not have and no ttrpc peer sends. It does not check that
// metadata is UTF-8: ttrpc does, and answers with an error.
type requestParser struct {
	left    int    // bytes of the fields that are still to come
	inner   int    // bytes of the fields of a KeyValue that are still to come, which are also in left
	skip    int    // bytes of the latest field that are still to come
	part    []byte // the start of a field, as far as it came
	service []byte
	method  []byte
	path    []byte // room for kind
	entries int    // bytes that the metadata counts
}

// reset prepares p for a request of n bytes.
func (p *requestParser) reset(n int) {
	*p = requestParser{left: n, part: p.part[:0], service: p.service[:0], method: p.method[:0], path: p.path}
}

// kind returns the kind of the method that was asked for.
func (p *requestParser) kind(m methods) kind {
	p.path = append(append(append(p.path[:0], p.service...), '/'), p.method...)
	return m[string(p.path)]
}

// feed reads the next bytes. It must not be given more than reset announced.
func (p *requestParser) feed(b []byte) error {
	for {
		n := min(p.skip, len(b))
		p.skip -= n
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		field, had := b, len(p.part)
		if had > 0 {
			p.part = append(p.part, b[:min(len(b), maxStart+maxName)]...)
			field = p.part
		}
		n, ok := p.field(field)
		if !ok {
			return errMalformed
		}
		if p.entries > maxMetadata {
			p.spoil(b[n-had-1:])
			return errMetadata
		}
		if n == 0 {
			p.part = append(p.part[:0], field...)
			return nil
		}
		b = b[n-had:]
		p.part = p.part[:0]
	}
}

// spoil makes a request from here on one that cannot be unmarshaled, wherever in it b is: no varint has as many bytes,
// and no text in UTF-8 has such a byte.
func (p *requestParser) spoil(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// finish reports whether the request was whole.
func (p *requestParser) finish() error {
	if p.left > 0 {
		return errMalformed
	}
	return nil
}

// field reads the start of a field, up to its value or, if that is a name, to its end. It returns the length of that,
// or 0 if b ends before.
func (p *requestParser) field(b []byte) (n int, ok bool) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, n == truncated
	}
	var value uint64
	if typ == protowire.VarintType || typ == protowire.BytesType {
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return 0, m == truncated
		}
		value, n = v, n+m
	}
	skip, inner := 0, 0
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
	switch {
	case p.inner > 0:
		inner = p.inner - n - skip
	case typ != protowire.BytesType:
	case num == fieldMetadata:
		inner, skip = skip, 0
		p.entries += inner + entryCost
	case num == fieldService || num == fieldMethod: // the last one of each counts
		name := &p.service
		if num == fieldMethod {
			name = &p.method
		}
		*name = (*name)[:0]
		if skip > maxName {
			break
		}
		if len(b) < n+skip {
			return 0, true
		}
		*name = append(*name, b[n:n+skip]...)
		if !utf8.Valid(*name) {
			return 0, false
		}
		n, skip = n+skip, 0
	}
	p.left -= n + skip
	p.inner, p.skip = inner, skip
	return n, p.left >= 0 && inner >= 0 && inner <= p.left
}

// truncated is what protowire returns for bytes that end too early.
var truncated = func() int { _, n := protowire.ConsumeVarint(nil); return n }()
