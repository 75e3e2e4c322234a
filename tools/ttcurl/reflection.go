package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc/codes"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/tools/grpcconn"
)

var errNoReflection = errors.New("the server has no reflection, so that its schema must come from elsewhere")

// reflection returns the server's own schema.
func (s *server) reflection(ctx context.Context) (*schema, error) {
	version, err := s.reflectionVersion(ctx)
	if err != nil {
		return nil, err
	}
	var client *grpcreflect.Client
	if version == "v1" {
		client = grpcreflect.NewClientV1(ctx, v1.NewServerReflectionClient(s))
	} else {
		client = grpcreflect.NewClientV1Alpha(ctx, v1alpha.NewServerReflectionClient(s))
	}
	client.AllowMissingFileDescriptors()
	return &schema{grpcurl.DescriptorSourceFromServer(ctx, client), true, client.Reset}, nil
}

// reflectionVersion returns which version of reflection the server has. It calls a method that no server has: opening
// a stream and sending on it, as reflection does, crashes servers with ttrpc before v1.2.8 that do not know the stream.
func (s *server) reflectionVersion(ctx context.Context) (string, error) {
	if use := s.options.reflection; use != nil && *use {
		return "v1", nil
	}
	timed, cancel := context.WithTimeout(ctx, seconds(s.options.connectTimeout))
	defer cancel()
	for _, version := range []string{"v1", "v1alpha"} {
		probe := "/grpc.reflection." + version + ".ServerReflection/Probe"
		err := s.Invoke(timed, probe, new(emptypb.Empty), new(emptypb.Empty))
		var not *grpcconn.NotTTRPCError
		switch st := status.Convert(err); {
		case s.dialError() != nil:
			return "", s.dialError()
		case errors.As(err, &not):
			return "", not
		case timed.Err() != nil && ctx.Err() == nil:
			return "", fmt.Errorf("%s does not answer within %v (-connect-timeout): is it a ttrpc server?",
				s.options.address, seconds(s.options.connectTimeout))
		case st.Code() == codes.Unavailable, ctx.Err() != nil:
			return "", fmt.Errorf("ask %s for its schema: %s", s.options.address, st.Message())
		case st.Code() == codes.Unimplemented && strings.HasPrefix(st.Message(), "method "): // ttrpc's words for it
			return version, nil
		}
	}
	return "", errNoReflection
}

func notFound(err error) bool {
	return grpcreflect.IsElementNotFoundError(err) || status.Code(err) == codes.NotFound ||
		strings.HasPrefix(err.Error(), "Symbol not found") // grpcurl's own type is not exported
}

// checkKind asks the server whether the method is of the kind that the schema says. Where it cannot tell, the warning
// says what may happen: a server with stock ttrpc crashes if a message arrives for a method that takes no stream.
func (s *server) checkKind(ctx context.Context, m *desc.MethodDescriptor) (warning string, _ error) {
	warning = fmt.Sprintf(
		"the server cannot say whether %s takes a stream, as the schema says: if not, this may crash it", m.GetName())
	if !m.IsClientStreaming() {
		warning = ""
	}
	if use := s.options.reflection; use != nil && !*use {
		return warning, nil
	}
	schema, err := s.reflection(ctx)
	if errors.Is(err, errNoReflection) {
		return warning, nil
	} else if err != nil {
		return "", err
	}
	defer schema.close()
	theirs, err := schema.method(m.GetService().GetFullyQualifiedName() + "/" + m.GetName())
	switch {
	case err != nil: // a server may reflect on a part of what it serves
		return warning, nil
	case kind(theirs) != kind(m):
		return "", fmt.Errorf("the schema says that %s is %s, but the server says that it is %s: "+
			"calling it that way may crash the server",
			m.GetFullyQualifiedName(), kind(m), kind(theirs))
	}
	return "", nil
}

func kind(m *desc.MethodDescriptor) string {
	switch {
	case m.IsClientStreaming() && m.IsServerStreaming():
		return "bidirectional streaming"
	case m.IsClientStreaming():
		return "client streaming"
	case m.IsServerStreaming():
		return "server streaming"
	}
	return "unary"
}
