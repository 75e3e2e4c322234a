package wire

import (
	"bytes"
	"testing"

	"github.com/containerd/ttrpc"
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

// TestMaxPayload holds the limit to ttrpc's, which it tells only through this error.
func TestMaxPayload(t *testing.T) {
	if got := new(ttrpc.OversizedMessageErr).MaximumLength(); got != MaxPayload {
		t.Errorf("ttrpc's limit is %d bytes, want %d", got, MaxPayload)
	}
}
