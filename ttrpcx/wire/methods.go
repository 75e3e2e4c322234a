package wire

import (
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// kind says what ttrpc's server does with a call, as far as the Guard's rules depend on it.
type kind uint8

const (
	unary        kind = iota // ttrpc answers once, and crashes on Data
	serverStream             // the client sends nothing after its request
	clientStream             // the client sends messages: client streaming and bidirectional
)

// methods tells the kind of a method by the numbers of its two names, which a requestParser can look up one by one,
// in whatever order they come, without keeping them. Number 0 is for names that are not known; what is not listed is
// unary.
type methods struct {
	names   map[string]uint32 // of services and methods
	streams map[[2]uint32]kind
	longest int // length in bytes of the longest name
}

// newMethods lists the methods of all services in protoregistry.GlobalFiles and of extra.
func newMethods(extra map[string]*ttrpc.ServiceDesc) *methods {
	m := &methods{
		names:   make(map[string]uint32),
		streams: make(map[[2]uint32]kind),
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				d := s.Methods().Get(j)
				m.add(string(s.FullName()), string(d.Name()), d.IsStreamingClient(), d.IsStreamingServer())
			}
		}
		return true
	})
	for service, desc := range extra {
		for name, s := range desc.Streams {
			m.add(service, name, s.StreamingClient, s.StreamingServer)
		}
	}
	return m
}

func (m *methods) add(service, name string, client, server bool) {
	id := [2]uint32{m.number(service), m.number(name)}
	switch {
	case client:
		m.streams[id] = clientStream
	case server:
		m.streams[id] = serverStream
	}
}

func (m *methods) number(name string) uint32 {
	if m.names[name] == 0 {
		m.names[name] = uint32(len(m.names) + 1)
		m.longest = max(m.longest, len(name))
	}
	return m.names[name]
}
