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

// unanswered says that a server did not answer the question whether it has reflection.
type unanswered struct{ error }

// reflection returns the server's own schema. Its error is errNoReflection or unanswered, unless the server cannot be
// reached or is none of ttrpc's. The server's next call then is made on the same connection: some take one only.
func (s *server) reflection(ctx context.Context) (grpcurl.DescriptorSource, error) {
	conn := s.Keep(ctx)
	version, err := s.reflectionVersion(ctx, conn)
	if err != nil {
		if errors.Is(err, errNoReflection) {
			s.spare.Store(conn)
		}
		return nil, err
	}
	var client *grpcreflect.Client
	if version == "v1" {
		client = grpcreflect.NewClientV1(ctx, v1.NewServerReflectionClient(conn))
	} else {
		client = grpcreflect.NewClientV1Alpha(ctx, v1alpha.NewServerReflectionClient(conn))
	}
	client.AllowMissingFileDescriptors()
	return grpcurl.DescriptorSourceFromServer(ctx, client), nil
}

// reflectionVersion returns which version of reflection the server has. It calls a method that no server has: opening
// a stream and sending on it, as reflection does, crashes servers with ttrpc before v1.2.8 that do not know the stream.
func (s *server) reflectionVersion(ctx context.Context, conn *grpcconn.Conn) (string, error) {
	timed, cancel := context.WithTimeout(ctx, seconds(s.options.connectTimeout))
	defer cancel()
	for _, version := range []string{"v1", "v1alpha"} {
		probe := "/grpc.reflection." + version + ".ServerReflection/Probe"
		err := conn.Invoke(timed, probe, new(emptypb.Empty), new(emptypb.Empty))
		var not *grpcconn.NotTTRPCError
		switch st := status.Convert(err); {
		case s.dialError() != nil:
			return "", s.dialError()
		case errors.As(err, &not):
			return "", not
		case ctx.Err() != nil:
			return "", fmt.Errorf("ask %s for its schema: %s", s.options.address, st.Message())
		case timed.Err() != nil:
			return "", unanswered{fmt.Errorf("%s does not answer within %v (-connect-timeout): is it a ttrpc server?",
				s.options.address, seconds(s.options.connectTimeout))}
		case st.Code() == codes.Unavailable:
			return "", unanswered{fmt.Errorf("ask %s for its schema: %s", s.options.address, st.Message())}
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

// checkKind finds out whether a method takes a stream of requests where the schema, which is not the server's own, says
// so. If not, a message may crash the server. Where that cannot be found out, the warning says so. For a method that
// takes one request, nothing is asked: that crashes no server.
func (s *server) checkKind(ctx context.Context, from *schema, m *desc.MethodDescriptor) (warning string, _ error) {
	if !m.IsClientStreaming() || from.files == nil {
		return "", nil
	}
	warning = fmt.Sprintf(
		"the server cannot say whether %s takes a stream, as the schema says: if not, this may crash it", m.GetName())
	if use := s.options.reflection; use != nil && !*use {
		return warning, nil
	}
	source := from.reflected
	if source == nil {
		var err error
		source, err = s.reflection(ctx)
		var silent unanswered
		switch {
		case errors.Is(err, errNoReflection):
			return warning, nil
		case errors.As(err, &silent):
			return "", fmt.Errorf("the server does not say whether %s takes a stream, as the schema says: "+
				"if not, this may crash it. -use-reflection=false does not ask: %w", m.GetName(), err)
		case err != nil:
			return "", err
		}
	}
	name := m.GetService().GetFullyQualifiedName() + "/" + m.GetName()
	theirs, err := (&schema{DescriptorSource: source}).method(name)
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
