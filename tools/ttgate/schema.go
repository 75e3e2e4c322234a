package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc/codes"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/tools/grpcconn"
)

// schema has the services and messages of a server.
type schema struct {
	files    *protoregistry.Files
	services []protoreflect.ServiceDescriptor
	methods  map[string]protoreflect.MethodDescriptor // by "/package.Service/Method"
}

func (s *schema) names() []string {
	names := make([]string, len(s.services))
	for i, service := range s.services {
		names[i] = string(service.FullName())
	}
	return names
}

// schema returns the server's schema: from a file if the options name one, and else by reflection.
func (b *backend) schema(ctx context.Context, conn *grpcconn.Conn) (*schema, error) {
	s := &schema{files: new(protoregistry.Files), methods: map[string]protoreflect.MethodDescriptor{}}
	var err error
	if b.protoset != "" {
		err = s.read(b.protoset)
	} else {
		err = s.ask(ctx, conn)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(s.services, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	for _, service := range s.services {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			s.methods[fmt.Sprintf("/%s/%s", service.FullName(), m.Name())] = m
		}
	}
	return s, nil
}

// read takes all services of a file that has a FileDescriptorSet.
func (s *schema) read(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read -protoset: %w", err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	err = proto.Unmarshal(b, set)
	if err == nil {
		s.files, err = protodesc.NewFiles(set)
	}
	if err != nil {
		return fmt.Errorf("read -protoset %s: %w", file, err)
	}
	s.files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s.services = append(s.services, f.Services().Get(i))
		}
		return true
	})
	return nil
}

// ask takes the services that the server lists, except for reflection, which the gate has itself.
func (s *schema) ask(ctx context.Context, conn *grpcconn.Conn) error {
	version, err := reflectionVersion(ctx, conn)
	if err != nil {
		return err
	}
	client := grpcreflect.NewClientV1Alpha(ctx, v1alpha.NewServerReflectionClient(conn))
	if version == "v1" {
		client = grpcreflect.NewClientV1(ctx, v1.NewServerReflectionClient(conn))
	}
	defer client.Reset()
	names, err := client.ListServices()
	if err != nil {
		return fmt.Errorf("ask for its services: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "grpc.reflection.") {
			continue
		}
		service, err := client.ResolveService(name)
		if err != nil {
			return fmt.Errorf("ask for the schema of %s: %w", name, err)
		}
		d := service.UnwrapService()
		if err := s.register(d.ParentFile()); err != nil {
			return err
		}
		s.services = append(s.services, d)
	}
	return nil
}

// register adds a file, and those that it imports, unless it is there already.
func (s *schema) register(file protoreflect.FileDescriptor) error {
	if _, err := s.files.FindFileByPath(file.Path()); err == nil {
		return nil
	}
	for i := range file.Imports().Len() {
		if err := s.register(file.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	return s.files.RegisterFile(file)
}

// reflectionVersion returns which version of reflection the server has. It calls a method that no server has, because
// opening a stream and sending on it crashes servers with ttrpc before v1.2.8 that do not know the stream.
func reflectionVersion(ctx context.Context, conn *grpcconn.Conn) (string, error) {
	for _, version := range []string{"v1", "v1alpha"} {
		probe := "/grpc.reflection." + version + ".ServerReflection/Probe"
		err := conn.Invoke(ctx, probe, new(emptypb.Empty), new(emptypb.Empty))
		st := status.Convert(err)
		if st.Code() != codes.Unimplemented {
			return "", err
		}
		if strings.HasPrefix(st.Message(), "method ") { // ttrpc's words for a service that is there
			return version, nil
		}
	}
	return "", errors.New("the server has no reflection: give its schema with -protoset")
}
