package main

import (
	"context"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// registerReflection serves gRPC's own reflection, v1.
func registerReflection(server *ttrpc.Server) {
	service := reflection.NewServerV1(reflection.ServerOptions{Services: services{}})
	server.RegisterService("grpc.reflection.v1.ServerReflection", &ttrpc.ServiceDesc{
		Streams: map[string]ttrpc.Stream{"ServerReflectionInfo": {
			StreamingClient: true,
			StreamingServer: true,
			Handler: func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
				return nil, service.ServerReflectionInfo(&reflectionStream{ctx: ctx, StreamServer: s})
			},
		}},
	})
}

type services struct{}

func (services) GetServiceInfo() map[string]grpc.ServiceInfo {
	info := map[string]grpc.ServiceInfo{}
	file := testv1.File_test_v1_test_proto.Services()
	for i := range file.Len() {
		info[string(file.Get(i).FullName())] = grpc.ServiceInfo{}
	}
	return info
}

// reflectionStream has what the reflection service uses of a gRPC stream.
type reflectionStream struct {
	grpc.ServerStream
	ttrpc.StreamServer
	ctx context.Context
}

func (s *reflectionStream) Context() context.Context { return s.ctx }
func (s *reflectionStream) SendMsg(m any) error      { return s.StreamServer.SendMsg(m) }
func (s *reflectionStream) RecvMsg(m any) error      { return s.StreamServer.RecvMsg(m) }

func (s *reflectionStream) Send(m *v1.ServerReflectionResponse) error { return s.SendMsg(m) }

func (s *reflectionStream) Recv() (*v1.ServerReflectionRequest, error) {
	m := new(v1.ServerReflectionRequest)
	return m, s.RecvMsg(m)
}
