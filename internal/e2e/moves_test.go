//go:build unix

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// header returns a header with length 0.
func header(id uint32, t wire.Type, flags wire.Flags) wire.Header {
	return wire.Header{StreamID: id, Type: t, Flags: flags}
}

func request(method string, flags wire.Flags, message proto.Message) frame {
	return frame{header(0, wire.TypeRequest, flags), marshal(&ttrpc.Request{
		Service: testServiceName, Method: method, Payload: marshal(message),
	})}
}

func message(m proto.Message) frame {
	return frame{header(0, wire.TypeData, 0), marshal(m)}
}

// lastMessage returns the frame with which a client says that it sends no more messages.
func lastMessage() frame {
	return frame{header(0, wire.TypeData, wire.FlagRemoteClosed|wire.FlagNoData), nil}
}

// marshal returns nil for nil.
func marshal(m proto.Message) []byte {
	if m == nil {
		return nil
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (p *peer) text(most int) string {
	b := make([]byte, p.rng.IntN(most+1))
	for i := range b {
		b[i] = 'a' + byte(p.rng.IntN(26))
	}
	return string(b)
}

func (p *peer) words(most int) []string {
	var words []string
	for range p.rng.IntN(most + 1) {
		words = append(words, "w"+p.text(8))
	}
	return words
}

func (p *peer) bytes(most int) []byte {
	b := make([]byte, p.rng.IntN(most+1))
	for i := range b {
		b[i] = byte(p.rng.Uint32())
	}
	return b
}

func pick[T any](s *session, of ...T) T { return oneOf(s.rng, of...) }

func oneOf[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// oneResponse is for a stream with one response. check checks the response.
func oneResponse(check func(*ttrpc.Response) error) func([]frame) (bool, error) {
	return func(got []frame) (bool, error) {
		if len(got) == 0 {
			return false, nil
		}
		var r ttrpc.Response
		if got[0].Type != wire.TypeResponse || proto.Unmarshal(got[0].payload, &r) != nil {
			return false, fmt.Errorf("%w: %+v, want a response", errWrong, got[0].Header)
		}
		return true, check(&r)
	}
}

// wantCode is for a call whose answer has one of the codes.
func wantCode(want ...codes.Code) func([]frame) (bool, error) {
	return oneResponse(func(r *ttrpc.Response) error {
		for _, c := range want {
			if codes.Code(r.GetStatus().GetCode()) == c {
				return nil
			}
		}
		return fmt.Errorf("%w: %v, want code %v", errWrong, r.GetStatus(), want)
	})
}

// wantMessage is for a call whose answer is a message.
func wantMessage(want proto.Message) func([]frame) (bool, error) {
	return oneResponse(func(r *ttrpc.Response) error {
		got := want.ProtoReflect().New().Interface()
		if r.GetStatus().GetCode() != 0 || proto.Unmarshal(r.GetPayload(), got) != nil || !proto.Equal(got, want) {
			return fmt.Errorf("%w: %v, want a message of %d bytes", errWrong, r.GetStatus(), proto.Size(want))
		}
		return nil
	})
}

// wantMessages is for a stream of messages from the server.
func wantMessages(want ...proto.Message) func([]frame) (bool, error) {
	return func(got []frame) (bool, error) {
		for i, f := range got {
			switch {
			case f.Type != wire.TypeData:
				return false, fmt.Errorf("%w: %+v, want data", errWrong, f.Header)
			case i == len(want):
				if f.Flags != wire.FlagRemoteClosed|wire.FlagNoData || f.Length > 0 {
					return false, fmt.Errorf("%w: %+v, want the end", errWrong, f.Header)
				}
				return true, nil
			}
			m := want[i].ProtoReflect().New().Interface()
			if f.Flags != 0 || proto.Unmarshal(f.payload, m) != nil || !proto.Equal(m, want[i]) {
				return false, fmt.Errorf("%w: %+v in place of message %d", errWrong, f.Header, i)
			}
		}
		return false, nil
	}
}

// wantEnd is for a stream that may end in any way.
func wantEnd(got []frame) (bool, error) {
	for _, f := range got {
		if f.Type == wire.TypeResponse || f.Flags&wire.FlagRemoteClosed != 0 {
			return true, nil
		}
	}
	return false, nil
}

// legal returns a random valid operation.
func (s *session) legal() *op {
	switch s.rng.IntN(16) {
	case 0:
		return s.unknown()
	case 1:
		return s.oddRequest()
	case 2:
		return s.badMessage()
	case 3, 4:
		return s.expired()
	case 5, 6:
		return s.split()
	case 7, 8:
		return s.join()
	case 9, 10, 11:
		return s.echo()
	case 12:
		return s.stray()
	default:
		if s.rng.IntN(8) == 0 && s.next < math.MaxUint32-1e6 {
			s.next += 2 * uint32(s.rng.IntN(1e4)) // ids may be skipped
		}
		return s.unary()
	}
}

func (s *session) unary() *op {
	m := &testv1.UnaryRequest{Foo: s.text(30), Bar: s.text(30)}
	if s.rng.IntN(100) == 0 {
		m.Bar = s.text(100 << 10)
	}
	flags := wire.Flags(0)
	if s.rng.IntN(4) == 0 {
		flags = wire.Flags(s.rng.Uint32()) // a unary call has no flags, so the server ignores them
	}
	return &op{
		name:   "Unary",
		frames: []frame{request("Unary", flags, m)},
		met:    wantMessage(&testv1.UnaryResponse{Foo: m.Foo, Bar: m.Bar}),
	}
}

// unknown calls a method that does not exist.
func (s *session) unknown() *op {
	r := &ttrpc.Request{
		Service: pick(s, "", "nobody", testServiceName, s.text(300)), Method: s.text(5), Payload: s.bytes(40),
	}
	if r.Service != testServiceName {
		r.Method = pick(s, r.Method, "Unary", "Echo", "Join")
	}
	return &op{
		name:   "unknown method",
		frames: []frame{{header(0, wire.TypeRequest, wire.Flags(s.rng.IntN(8))), marshal(r)}},
		met:    wantCode(codes.Unimplemented),
	}
}

// oddRequest is a valid request that no ttrpc client would send.
func (s *session) oddRequest() *op {
	r := &ttrpc.Request{
		Service: testServiceName, Method: "Unary", Payload: marshal(&testv1.UnaryRequest{Foo: "odd"}),
		TimeoutNano: math.MaxInt64,
	}
	for range s.rng.IntN(5) {
		r.Metadata = append(r.Metadata, &ttrpc.KeyValue{Key: pick(s, "", "a", "\u00e4"), Value: s.text(20)})
	}
	var b []byte
	if s.rng.IntN(2) == 0 { // fields that are set again: the last one counts
		b = marshal(&ttrpc.Request{Service: "nobody", Method: pick(s, "Echo", "Split", "Method2"), TimeoutNano: -1})
	}
	b = append(b, marshal(r)...)
	if s.rng.IntN(2) == 0 { // an unknown field
		b = protowire.AppendTag(b, protowire.Number(6+s.rng.IntN(1000)), protowire.BytesType)
		b = protowire.AppendBytes(b, s.bytes(50))
	}
	return &op{
		name:   "odd request",
		frames: []frame{{header(0, wire.TypeRequest, 0), b}},
		met:    wantMessage(&testv1.UnaryResponse{Foo: "odd"}),
	}
}

// badMessage is a valid request with a message that cannot be decoded.
func (s *session) badMessage() *op {
	method := pick(s, "Unary", "Split", "Join", "Echo")
	r := &ttrpc.Request{Service: testServiceName, Method: method, Payload: []byte{0xff}}
	return &op{
		name:   "bad message",
		frames: []frame{{header(0, wire.TypeRequest, 0), marshal(r)}},
		met:    wantCode(codes.Internal),
	}
}

// expired is a call whose deadline has passed, or passes at once.
func (s *session) expired() *op {
	r := &ttrpc.Request{
		Service: testServiceName, Method: pick(s, "Unary", "Split", "Join", "Echo"),
		TimeoutNano: pick(s, -1, 1, 1000, math.MinInt64, -int64(time.Hour)),
	}
	o := &op{
		name:   "expired " + r.Method,
		frames: []frame{{header(0, wire.TypeRequest, 0), marshal(r)}},
		met:    wantEnd,
	}
	if r.Method == "Join" || r.Method == "Echo" {
		for range s.rng.IntN(4) {
			o.frames = append(o.frames, message(&testv1.EchoRequest{Message: s.text(10)}))
		}
		o.frames = append(o.frames, lastMessage())
	}
	return o
}

func (s *session) split() *op {
	words := s.words(20)
	var want []proto.Message
	for _, w := range words {
		want = append(want, &testv1.SplitResponse{Word: w})
	}
	return &op{
		name:   "Split",
		frames: []frame{request("Split", wire.FlagRemoteClosed, &testv1.SplitRequest{Text: strings.Join(words, " ")})},
		met:    wantMessages(want...),
	}
}

func (s *session) join() *op {
	words := s.words(20)
	o := &op{
		name:   "Join",
		frames: []frame{request("Join", wire.FlagRemoteOpen, nil)},
		met:    wantMessage(&testv1.JoinResponse{Text: strings.Join(words, " ")}),
	}
	for i, w := range words {
		if i == 0 && s.rng.IntN(4) == 0 { // the request may have the first message in it
			o.frames[0] = request("Join", wire.FlagRemoteOpen, &testv1.JoinRequest{Word: w})
			continue
		}
		o.frames = append(o.frames, message(&testv1.JoinRequest{Word: w}))
	}
	o.frames = append(o.frames, lastMessage())
	return o
}

func (s *session) echo() *op {
	var want []proto.Message
	o := &op{name: "Echo", frames: []frame{request("Echo", wire.FlagRemoteOpen, nil)}}
	for range s.rng.IntN(20) {
		text := s.text(40)
		switch s.rng.IntN(1000) {
		case 0:
			text = s.text(200 << 10)
		case 1:
			text = strings.Repeat("x", 1<<20)
		}
		if s.rng.IntN(8) == 0 { // a frame without a message
			flags := wire.FlagNoData | pick(s, 0, wire.FlagRemoteOpen)
			o.frames = append(o.frames, frame{header(0, wire.TypeData, flags), nil})
		}
		want = append(want, &testv1.EchoResponse{Message: text})
		o.frames = append(o.frames, message(&testv1.EchoRequest{Message: text}))
	}
	if s.rng.IntN(4) == 0 { // the last frame may have a message, if that is empty
		want = append(want, &testv1.EchoResponse{})
		o.frames = append(o.frames, frame{header(0, wire.TypeData, wire.FlagRemoteClosed), nil})
	} else {
		o.frames = append(o.frames, lastMessage())
	}
	o.met = wantMessages(want...)
	return o
}

// stray makes a call and sends data to a stream that has ended. A correct client does that if the server ends a stream
// early.
func (s *session) stray() *op {
	o := s.unary()
	if len(s.ended) == 0 {
		return o
	}
	o.name = "stray data"
	for range 1 + s.rng.IntN(3) {
		id := s.ended[s.rng.IntN(len(s.ended))]
		f := frame{header(id, wire.TypeData, 0), s.bytes(30)}
		if s.rng.IntN(3) == 0 {
			f = frame{header(id, wire.TypeData, wire.FlagRemoteClosed|wire.FlagNoData), nil}
		}
		o.frames = append(o.frames, f)
	}
	return o
}

// ending is how a connection ends.
type ending struct {
	name   string
	weight int
	do     func(*session) error
}

var endings = []ending{
	{"close", 4, func(*session) error { return nil }},
	{"close with calls open", 4, (*session).leave},
	{"data for a call in progress", 6, (*session).dataForCall},
	{"data for a stream without client messages", 3, (*session).dataForSplit},
	{"data for a stream never opened", 3, (*session).dataUnopened},
	{"data after the end", 3, (*session).dataAfterEnd},
	{"end with a payload", 3, (*session).endWithPayload},
	{"even id", 3, (*session).evenID},
	{"used id", 3, (*session).usedID},
	{"last id", 3, (*session).lastID},
	{"unknown type", 3, (*session).unknownType},
	{"too long", 3, (*session).tooLong},
	{"malformed request", 6, (*session).malformed},
	{"another protocol", 3, (*session).otherProtocol},
	{"garbage", 6, (*session).garbage},
	{"half a frame", 6, (*session).half},
	{"streams over the limit", 1, (*session).tooManyStreams},
	{"calls over the limit", 1, (*session).tooManyCalls},
}

func (s *session) ending() ending {
	sum := 0
	for _, e := range endings {
		sum += e.weight
	}
	n := s.rng.IntN(sum)
	for _, e := range endings {
		if n -= e.weight; n < 0 {
			return e
		}
	}
	panic("unreachable")
}

// openStream opens a stream on which the client can send messages.
func (s *session) openStream() uint32 {
	o := &op{frames: []frame{request(pick(s, "Echo", "Join"), wire.FlagRemoteOpen, nil)}}
	s.identify(o)
	s.send(o.frames...)
	return o.id
}

// leave closes the connection while calls are open.
func (s *session) leave() error {
	for range 1 + s.rng.IntN(10) {
		o := s.legal()
		s.identify(o)
		s.send(o.frames[:1+s.rng.IntN(len(o.frames))]...)
	}
	if s.rng.IntN(2) == 0 {
		s.closeWrite()
		return s.cut()
	}
	return nil
}

// dataForCall sends data for a unary call, which makes a plain ttrpc server panic.
func (s *session) dataForCall() error {
	for range 1 + s.rng.IntN(8) {
		o := s.unary()
		s.identify(o)
		flags := pick(s, 0, wire.FlagRemoteClosed|wire.FlagNoData, wire.FlagNoData)
		s.send(append(o.frames, frame{header(o.id, wire.TypeData, flags), nil})...)
	}
	return s.cutOrServed()
}

func (s *session) dataForSplit() error {
	text := strings.Repeat("a ", 3000)
	o := &op{frames: []frame{request("Split", wire.FlagRemoteClosed, &testv1.SplitRequest{Text: text})}}
	s.identify(o)
	s.send(o.frames[0], frame{header(o.id, wire.TypeData, 0), s.bytes(20)})
	return s.cutOrServed()
}

func (s *session) dataUnopened() error {
	s.send(frame{header(s.opened+1+uint32(s.rng.IntN(1000)), wire.TypeData, pick(s, 0, wire.FlagNoData)), nil})
	return s.cut()
}

func (s *session) dataAfterEnd() error {
	id := s.openStream()
	end := frame{header(id, wire.TypeData, wire.FlagRemoteClosed|wire.FlagNoData), nil}
	s.send(end, pick(s, end, frame{header(id, wire.TypeData, 0), nil}))
	return s.cutOrServed()
}

func (s *session) endWithPayload() error {
	id := s.openStream()
	flags := pick(s, wire.FlagRemoteClosed, wire.FlagNoData, wire.FlagRemoteClosed|wire.FlagNoData)
	s.send(frame{header(id, wire.TypeData, flags), append(s.bytes(20), 0)})
	return s.cut()
}

func (s *session) evenID() error {
	f := s.unary().frames[0]
	f.StreamID = pick(s, 2, s.next+1, math.MaxUint32-1)
	s.send(f)
	return s.cut()
}

func (s *session) usedID() error {
	o := s.unary()
	s.next += 20
	s.identify(o)
	s.send(o.frames...)
	o.frames[0].StreamID -= pick(s, uint32(0), 2, 20)
	s.send(o.frames...)
	return s.cut()
}

// lastID opens a stream after the one with the highest possible id.
func (s *session) lastID() error {
	s.next = math.MaxUint32
	if err := s.do(s.unary()); err != nil {
		return err
	}
	o := pick(s, s.unary(), s.echo())
	s.identify(o)
	s.send(o.frames...)
	return s.cut()
}

func (s *session) unknownType() error {
	f := s.unary().frames[0]
	f.StreamID = s.next
	f.Type = pick(s, 0, wire.TypeResponse, 4, 0xff, wire.Type(4+s.rng.IntN(252)))
	s.send(f)
	return s.cut()
}

func (s *session) tooLong() error {
	h := header(s.next, pick(s, wire.TypeRequest, wire.TypeData), 0)
	h.Length = pick[uint32](s, wire.MaxPayload+1, math.MaxInt32, math.MaxInt32+1, math.MaxUint32)
	s.sent.Add(1)
	s.write(append(h.Append(nil), s.bytes(1000)...))
	return s.cut()
}

func (s *session) malformed() error {
	whole := s.unary().frames[0].payload
	f := frame{header(s.next, wire.TypeRequest, 0), pick(s,
		whole[:len(whole)-1],
		append(bytes.Clone(whole), 0),              // field 0
		append(bytes.Clone(whole), 0x0f),           // wire type 7
		[]byte{0x0a, 2, 0xff, 0xfe},                // a service that is not UTF-8
		[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, // a length beyond the end
		bytes.Repeat([]byte{0xff}, 1+s.rng.IntN(100)),
		[]byte{0x2a, 3, 0x0a, 5, 'x'}, // metadata that ends in the middle
	)}
	s.send(f)
	return s.cut()
}

func (s *session) otherProtocol() error {
	s.sent.Add(1)
	s.write([]byte(pick(s,
		"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"SSH-2.0-OpenSSH_9.9\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		`{"jsonrpc":"2.0","id":1,"method":"Unary"}`,
	)))
	return s.cut()
}

// garbage sends random bytes, or valid frames with some bytes changed. The result is not known.
func (s *session) garbage() error {
	b := s.bytes(500)
	if s.rng.IntN(2) == 0 {
		b = nil
		for range 1 + s.rng.IntN(5) {
			o := s.legal()
			s.identify(o)
			for _, f := range o.frames {
				s.sent.Add(1)
				b = wire.AppendFrame(b, f.Header, f.payload)
			}
		}
		for range 1 + s.rng.IntN(5) {
			b[s.rng.IntN(min(len(b), 500))] = byte(s.rng.Uint32())
		}
	}
	s.sent.Add(1)
	s.write(b)
	if s.rng.IntN(2) == 0 {
		s.closeWrite()
		return s.cut()
	}
	return nil
}

// half ends in the middle of a frame.
func (s *session) half() error {
	o := s.legal()
	s.identify(o)
	f := o.frames[0]
	b := wire.AppendFrame(nil, f.Header, f.payload)
	if s.rng.IntN(4) == 0 {
		binary.BigEndian.PutUint32(b, wire.MaxPayload)
	}
	s.sent.Add(1)
	s.write(b[:s.rng.IntN(len(b))])
	if s.rng.IntN(2) == 0 {
		s.closeWrite()
		return s.cut()
	}
	return nil
}

// tooManyStreams opens more streams than the server runs at once, before it ends the first one. The server must serve
// or refuse each.
func (s *session) tooManyStreams() error {
	var ops []*op
	for range s.maxCalls + 20 {
		o := &op{name: "Echo over the limit", frames: []frame{request("Echo", wire.FlagRemoteOpen, nil)}}
		s.identify(o)
		s.send(o.frames...)
		ops = append(ops, o)
	}
	for _, o := range ops {
		m, end := message(&testv1.EchoRequest{Message: "x"}), lastMessage()
		m.StreamID, end.StreamID = o.id, o.id
		s.send(m, end)
		echoed, refused := wantMessages(&testv1.EchoResponse{Message: "x"}), wantCode(codes.ResourceExhausted)
		o.met = func(got []frame) (bool, error) {
			if len(got) > 0 && got[0].Type == wire.TypeResponse {
				return refused(got)
			}
			return echoed(got)
		}
	}
	for _, o := range ops {
		if err := s.answer(o); err != nil {
			return err
		}
	}
	return s.do(s.unary())
}

// tooManyCalls makes more calls at once than the server allows. All must get answers.
func (s *session) tooManyCalls() error {
	var ops []*op
	for range 4 * s.maxCalls {
		ops = append(ops, pick(s, s.unary, s.split)())
	}
	return s.do(ops...)
}
