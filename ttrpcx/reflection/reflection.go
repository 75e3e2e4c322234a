// Package reflection tells callers which methods and messages a server has, in the way of gRPC's server reflection, so that
// tools made for that need no .proto files: https://grpc.io/docs/guides/reflection/.
package reflection

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Options say what to tell. The zero value tells of nothing but reflection itself and what is linked in.
type Options struct {
	// Services names the services ("package.Service") that the server has, which ttrpc does not tell. The two versions of
	// reflection are listed besides.
	Services []string

	// Files has what clients may ask for, which is more than Services need. Default: protoregistry.GlobalFiles.
	Files *protoregistry.Files

	// Types has the extensions that clients may ask for. Default: protoregistry.GlobalTypes.
	Types *protoregistry.Types
}

// Services returns the services grpc.reflection.v1.ServerReflection and grpc.reflection.v1alpha.ServerReflection by their
// names, for ttrpc.Server.RegisterService. Package protobuf does not know them, so a wire.Guard must be told of them. It
// is an error if one of Options.Services is not in Options.Files.
func Services(o Options) (map[string]*ttrpc.ServiceDesc, error) {
	files := cmp.Or(o.Files, protoregistry.GlobalFiles)
	for _, name := range o.Services {
		d, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, fmt.Errorf("reflection: no .proto file of this program has a service %q", name)
		}
		if _, ok := d.(protoreflect.ServiceDescriptor); !ok {
			return nil, fmt.Errorf("reflection: %q in %s is no service", name, d.ParentFile().Path())
		}
	}
	s := &server{
		services: slices.Clone(o.Services),
		files:    files,
		types:    cmp.Or(o.Types, protoregistry.GlobalTypes),
	}
	descs := map[string]*ttrpc.ServiceDesc{}
	for _, name := range []string{"v1", "v1alpha"} {
		v, err := newVersion(name)
		if err != nil {
			return nil, fmt.Errorf("reflection: schema of %s: %w", name, err)
		}
		s.versions = append(s.versions, v)
		s.services = append(s.services, v.service)
		descs[v.service] = s.describe()
	}
	slices.Sort(s.services)
	return descs, nil
}

// server is what all calls share.
type server struct {
	services []string // full names, sorted
	files    *protoregistry.Files
	types    *protoregistry.Types
	versions []*version // for what files lack
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
