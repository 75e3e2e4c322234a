package wire

import (
	"bytes"
	"testing"
)

func FuzzCutter(f *testing.F) {
	one := AppendFrame(nil, Header{StreamID: 3, Type: TypeData}, []byte("abc"))
	f.Add(append(one, one...), byte(4))
	f.Add(append(one, one...), byte(20))
	f.Add(one[:12], byte(0))
	f.Add(Header{Length: MaxPayload + 1}.Append(nil), byte(9))
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		var c cutter
		var got []byte
		end := 0 // of the last whole frame
		for rest := b; len(rest) > 0; {
			piece := rest[:min(len(rest), int(step)+1)]
			rest = rest[len(piece):]
			for len(piece) > 0 {
				fr, n, err := c.next(piece)
				if h, _ := ParseHeader(b[end:]); err != nil {
					if h.Length <= MaxPayload {
						t.Fatalf("%v of %+v", err, h)
					}
					return
				}
				piece = piece[n:]
				if fr.size() == 0 {
					continue
				}
				got = append(append(got, fr.head...), fr.tail...)
				h, _ := ParseHeader(b[end:])
				if fr.Header != h || !bytes.Equal(fr.payload(), b[end+HeaderSize:][:h.Length]) {
					t.Fatalf("got %+v, want %+v", fr, h)
				}
				end += fr.size()
				fr.part.free()
			}
		}
		if !bytes.Equal(got, b[:end]) {
			t.Fatalf("got %x of %x", got, b)
		}
		if h, ok := ParseHeader(b[end:]); ok && len(b)-end >= HeaderSize+int(h.Length) {
			t.Fatalf("%+v was not cut off", h)
		}
	})
}

// A queue keeps the frames that are wanted, and changes of them.
func TestFilter(t *testing.T) {
	b := newBuffer()
	defer b.free()
	push := func(one []byte) {
		h, _ := ParseHeader(one)
		b.push(&frame{Header: h, head: one[:4], tail: one[4:]})
	}
	kept, other := callFrame(3, "Unary"), dataFrame(1, 0, "short")
	push(callFrame(1, "Join"))
	push(kept)
	push(dataFrame(1, 0, "some message"))
	b.filter(func(f *frame) bool {
		if f.Type == TypeData {
			f.tail = other
		}
		return f.StreamID != 1 || f.Type != TypeRequest
	})
	if want := frames(kept, other); !bytes.Equal(b.b, want) || len(b.made) != 1 {
		t.Errorf("got %q and %d times, want %q", b.b, len(b.made), want)
	}
}
