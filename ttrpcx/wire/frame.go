package wire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	// HeaderSize is the length of every frame's header in bytes.
	HeaderSize = 10

	// MaxPayload is the longest payload in bytes that a frame may carry. ttrpc calls it messageLengthMax.
	MaxPayload = 4 << 20

	// ttrpcBuffer is the length in bytes of ttrpc's bufio.Reader and bufio.Writer. It never reads into less.
	ttrpcBuffer = 4096
)

// Type says what a frame carries.
type Type uint8

// The frame types of ttrpc's protocol.
const (
	TypeRequest  Type = 1 // opens a stream; the payload is a ttrpc.Request
	TypeResponse Type = 2 // closes a stream; the payload is a ttrpc.Response
	TypeData     Type = 3 // one message of an open stream
)

// Flags are the bits of a header that depend on its type.
type Flags uint8

// The flags of ttrpc's protocol.
const (
	FlagRemoteClosed Flags = 1 << iota // the sender sends no more on this stream
	FlagRemoteOpen                     // the sender of a request sends data after it
	FlagNoData                         // the frame carries no message, not even an empty one
)

// FlagStopping is a Guard's own. On a response it says that the server has not run the call, and runs none with a
// higher stream id on this connection.
const FlagStopping Flags = 1 << 7

// Header is the fixed part of a frame. All integers are big endian on the wire, in the order of the fields.
type Header struct {
	Length   uint32 // of the payload, without the header, in bytes
	StreamID uint32 // odd for a stream that the client opened
	Type     Type
	Flags    Flags
}

// closes reports whether a server that sends h sends no more on the stream.
func (h Header) closes() bool {
	return h.Type == TypeResponse || h.Type == TypeData && h.Flags&FlagRemoteClosed != 0
}

// ParseHeader reads the header at the start of b. It judges nothing: whether a type, flag or length is allowed depends
// on the stream. ok is false if b is shorter than HeaderSize.
func ParseHeader(b []byte) (h Header, ok bool) {
	if len(b) < HeaderSize {
		return Header{}, false
	}
	return Header{
		Length:   binary.BigEndian.Uint32(b[0:4]),
		StreamID: binary.BigEndian.Uint32(b[4:8]),
		Type:     Type(b[8]),
		Flags:    Flags(b[9]),
	}, true
}

// Append appends the header to b and returns the longer slice.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, h.Length)
	b = binary.BigEndian.AppendUint32(b, h.StreamID)
	return append(b, byte(h.Type), byte(h.Flags))
}

// AppendFrame appends a whole frame to b and returns the longer slice. It sets the header's length to the payload's and
// panics if that is over MaxPayload: such a frame would end the peer's connection.
func AppendFrame(b []byte, h Header, payload []byte) []byte {
	if len(payload) > MaxPayload {
		panic(fmt.Sprintf("wire: payload of %d bytes is over the limit of %d", len(payload), MaxPayload))
	}
	h.Length = uint32(len(payload))
	return append(h.Append(b), payload...)
}

// refusal returns the frame that ends a call in the place of ttrpc.
func refusal(id uint32, code codes.Code, message string) []byte {
	st := status.New(code, strings.ToValidUTF8(message, "\uFFFD"))
	payload, _ := proto.Marshal(&ttrpc.Response{Status: st.Proto()}) // fails on invalid UTF-8 only
	return AppendFrame(nil, Header{StreamID: id, Type: TypeResponse}, payload)
}
