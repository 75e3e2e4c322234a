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

// methods has the kinds of the methods that are not unary, by SERVICE/METHOD.
type methods map[string]kind

// newMethods lists the methods of all services in protoregistry.GlobalFiles and of extra.
func newMethods(extra map[string]*ttrpc.ServiceDesc) methods {
	m := make(methods)
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

func (m methods) add(service, name string, client, server bool) {
	switch {
	case client:
		m[service+"/"+name] = clientStream
	case server:
		m[service+"/"+name] = serverStream
	}
}
