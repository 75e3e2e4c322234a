package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// parseIn feeds a request to a parser in pieces whose lengths are taken from cuts in turn, or whole if there are none.
func parseIn(p *requestParser, b, cuts []byte) error {
	p.reset(len(b))
	for i := 0; len(b) > 0; i++ {
		n := len(b)
		if len(cuts) > 0 {
			n = min(n, int(cuts[i%len(cuts)])%16+1)
		}
		if err := p.feed(bytes.Clone(b[:n])); err != nil {
			return err
		}
		b = b[n:]
	}
	return p.finish()
}

// hasGroup reports whether b has a group that a request's fields do not hide.
func hasGroup(b []byte) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ == protowire.StartGroupType {
			return n > 0
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return false
		}
		if num == fieldMetadata && typ == protowire.BytesType {
			if v, _ := protowire.ConsumeBytes(b[n:]); hasGroup(v) {
				return true
			}
		}
		b = b[n+m:]
	}
	return false
}

func FuzzRequestParser(f *testing.F) {
	whole := marshal(f, &ttrpc.Request{
		Service: "test.v1.Test", Method: "Echo", Payload: []byte("payload"), TimeoutNano: -1,
		Metadata: []*ttrpc.KeyValue{{Key: "k", Value: "é世界"}, {}},
	})
	join := marshal(f, &ttrpc.Request{Service: "test.v1.Test", Method: "Join"})
	f.Add(whole, []byte{})
	f.Add(whole, []byte{0})
	f.Add(append(bytes.Clone(whole), join...), []byte{2, 0, 5}) // the last name counts
	f.Add(append(bytes.Clone(join), whole...), []byte{})
	f.Add(whole[:len(whole)-1], []byte{1})
	f.Add([]byte("\x20\x01\x80"), []byte{}) // a tag that is cut off
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x0a\x02\xc3\xa9"), []byte{0})                            // a two-byte character
	f.Add([]byte("\x0a\x02\xc3\x28"), []byte{0})                            // not UTF-8
	f.Add([]byte("\x0a\x01\xc3"), []byte{})                                 // the start of a character
	f.Add([]byte("\x0a\x04\xf0\x90\x8d\x88"), []byte{1})                    // a four-byte character
	f.Add([]byte("\x2a\x03\x0a\x05ab"), []byte{})                           // a key longer than its KeyValue
	f.Add([]byte("\x2a\x01\x80\x01"), []byte{})                             // a tag longer than its KeyValue
	f.Add([]byte("\x2a\x04\x20\x81\x80\x00\x08\x01"), []byte{0})            // known numbers with other types
	f.Add([]byte("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), []byte{}) // 64 bits
	f.Add([]byte("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), []byte{}) // 65 bits
	f.Add([]byte("\x49\x01\x02\x03\x04\x05\x06\x07\x08\x4d\x01\x02\x03\x04"), []byte{3})
	f.Add([]byte("\x0b\x0c"), []byte{})                               // a group
	f.Add([]byte("\x0e\x00"), []byte{})                               // no wire type
	f.Add([]byte("\x00\x00"), []byte{})                               // no field number
	f.Add([]byte("\x80\x80\x80\x80\x10\x00"), []byte{})               // too high a field number
	f.Add([]byte("\x1a\xff\xff\xff\xff\x0f"), []byte{})               // longer than the payload
	f.Add([]byte("\x12\xb0\x04"+strings.Repeat("M", 560)), []byte{4}) // too long for a name

	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		p := requestParser{}
		err := parseIn(&p, b, cuts)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Fatalf("got another error than errMalformed: %v", err)
		}
		whole := requestParser{}
		if wholeErr := parseIn(&whole, b, nil); (err == nil) != (wholeErr == nil) {
			t.Fatalf("got %v in pieces, and %v whole", err, wholeErr)
		}
		var r ttrpc.Request
		if proto.Unmarshal(b, &r) != nil || hasGroup(b) {
			return // ttrpc does not call a handler, or the request is refused
		}
		if err != nil {
			t.Fatalf("got %v of a good request", err)
		}
		for got, want := range map[*[]byte]string{&p.service: r.Service, &p.method: r.Method} {
			if string(*got) != want && (len(want) <= maxName || len(*got) > 0) {
				t.Fatalf("got a name %q, but it is %q", *got, want)
			}
		}
	})
}

func TestKinds(t *testing.T) {
	methods := newMethods(map[string]*ttrpc.ServiceDesc{"extra.Service": {
		Methods: map[string]ttrpc.Method{"Unary": nil},
		Streams: map[string]ttrpc.Stream{
			"Bidi": {StreamingClient: true, StreamingServer: true},
			"Up":   {StreamingClient: true},
			"Down": {StreamingServer: true},
		},
	}})
	for _, test := range []struct {
		service, method string
		want            kind
	}{
		{"test.v1.Test", "Unary", unary},
		{"test.v1.Test", "Split", serverStream},
		{"test.v1.Test", "Join", clientStream},
		{"test.v1.Test", "Echo", clientStream},
		{"test.v1.Test", "Bidi", unary},
		{"extra.Service", "Echo", unary},
		{"extra.Service", "Unary", unary},
		{"extra.Service", "Bidi", clientStream},
		{"extra.Service", "Up", clientStream},
		{"extra.Service", "Down", serverStream},
		{"", "", unary},
	} {
		for _, cuts := range [][]byte{nil, {0}, {6}} {
			p := requestParser{}
			if err := parseIn(&p, requestPayload(t, test.service, test.method, []byte("x")), cuts); err != nil {
				t.Fatal(err)
			}
			if got := p.kind(methods); got != test.want {
				t.Errorf("%s/%s in pieces of %v: got kind %d, want %d", test.service, test.method, cuts, got, test.want)
			}
		}
	}
}
