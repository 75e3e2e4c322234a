package wire

import (
	"bytes"
	"testing"
)

func FuzzFrame(f *testing.F) {
	f.Add(uint32(1), byte(TypeRequest), byte(0), []byte("payload"))
	f.Add(uint32(1<<32-1), byte(255), byte(255), []byte{})
	f.Fuzz(func(t *testing.T, id uint32, typ, flags byte, payload []byte) {
		h := Header{StreamID: id, Type: Type(typ), Flags: Flags(flags)}
		prefix := []byte("prefix")
		b := AppendFrame(bytes.Clone(prefix), h, payload)
		h.Length = uint32(len(payload))
		got, ok := ParseHeader(b[len(prefix):])
		if !ok || got != h {
			t.Fatalf("got %+v, %v, want %+v", got, ok, h)
		}
		if !bytes.HasPrefix(b, prefix) || !bytes.Equal(b[len(prefix)+HeaderSize:], payload) {
			t.Fatalf("frame %x does not hold payload %x", b, payload)
		}
		if _, ok := ParseHeader(b[len(prefix):][:HeaderSize-1]); ok {
			t.Fatal("a header was read from too few bytes")
		}
	})
}

func TestFrameTooLong(t *testing.T) {
	AppendFrame(nil, Header{}, make([]byte, MaxPayload))
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	AppendFrame(nil, Header{}, make([]byte, MaxPayload+1))
}

func FuzzTracker(f *testing.F) {
	one := AppendFrame(nil, Header{StreamID: 3, Type: TypeData}, []byte("abc"))
	f.Add(append(one, one...), byte(4))
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		var want, got []Header
		for rest := b; ; {
			h, ok := ParseHeader(rest)
			if !ok {
				break
			}
			want = append(want, h)
			rest = rest[min(len(rest), HeaderSize+int(h.Length)):]
		}
		var tr tracker
		for rest := b; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			for part := rest[:n]; ; {
				h, r, ok := tr.next(part)
				if !ok {
					break
				}
				got = append(got, h)
				part = r
			}
			rest = rest[n:]
		}
		if len(got) != len(want) {
			t.Fatalf("got %d headers, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("header %d: got %+v, want %+v", i, got[i], want[i])
			}
		}
	})
}
