// Package reflection offers gRPC's server reflection on a ttrpc server: it tells clients which methods and messages the
// server has. Tools that use it need no .proto files: https://grpc.io/docs/guides/reflection/.
package reflection

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Options say what the server tells. With the zero value, it lists no services except reflection, and tells about all
// .proto files that are linked into the program.
type Options struct {
	// Services are the full names ("package.Service") of the services that the server lists, because ttrpc does not
	// tell which ones are registered. The two versions of reflection are listed, too.
	Services []string

	// Files are the .proto files that clients may ask for, also those that Services do not need. Default:
	// protoregistry.GlobalFiles.
	Files *protoregistry.Files

	// More are files that clients may ask for as well, such as health.File. They must not be in Files.
	More []protoreflect.FileDescriptor

	// Types contains the extensions that clients may ask for. Default: protoregistry.GlobalTypes.
	Types *protoregistry.Types
}

// Services returns the services grpc.reflection.v1.ServerReflection and grpc.reflection.v1alpha.ServerReflection by
// name. Register them with ttrpc.Server.RegisterService, and give them to wire.GuardOptions.Services or
// ttrpcx.ServerOptions.Services, because they are not in protobuf's registry. It is an error if one of Options.Services
// is neither in Options.Files nor in Options.More.
func Services(o Options) (map[string]*ttrpc.ServiceDesc, error) {
	s := &server{
		services: slices.Clone(o.Services),
		files:    cmp.Or(o.Files, protoregistry.GlobalFiles),
		more:     new(protoregistry.Files),
		types:    cmp.Or(o.Types, protoregistry.GlobalTypes),
	}
	for _, file := range o.More {
		if err := s.more.RegisterFile(file); err != nil {
			return nil, fmt.Errorf("reflection: %w", err)
		}
	}
	for _, name := range o.Services {
		d, err := s.find(name)
		if err != nil {
			return nil, fmt.Errorf("reflection: no .proto file of this program has a service %q", name)
		}
		if _, ok := d.(protoreflect.ServiceDescriptor); !ok {
			return nil, fmt.Errorf("reflection: %q in %s is not a service", name, d.ParentFile().Path())
		}
	}
	descs := map[string]*ttrpc.ServiceDesc{}
	for _, version := range []string{"v1", "v1alpha"} {
		file, err := newSchema(version)
		if err == nil {
			err = s.more.RegisterFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("reflection: schema of %s: %w", version, err)
		}
		name := string(file.Services().Get(0).FullName())
		s.services = append(s.services, name)
		descs[name] = s.describe()
	}
	slices.Sort(s.services)
	return descs, nil
}

// server is the data that all calls share.
type server struct {
	services []string // full names, sorted
	files    *protoregistry.Files
	more     *protoregistry.Files // Options.More, and those of reflection itself
	types    *protoregistry.Types
	encoded  sync.Map // []byte by the path of the file
}

// find returns what has the full name.
func (s *server) find(name string) (protoreflect.Descriptor, error) {
	d, err := s.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		d, err = s.more.FindDescriptorByName(protoreflect.FullName(name))
	}
	return d, err
}

func (s *server) describe() *ttrpc.ServiceDesc {
	handler := func(_ context.Context, stream ttrpc.StreamServer) (any, error) {
		c := &call{server: s, sent: map[string]bool{}}
		return nil, c.run(stream)
	}
	return &ttrpc.ServiceDesc{
		Streams: map[string]ttrpc.Stream{method: {Handler: handler, StreamingClient: true, StreamingServer: true}},
	}
}
