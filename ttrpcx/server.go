package ttrpcx

import (
	"context"
	"log/slog"
	"maps"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"example.com/ttrpc-starter/ttrpcx/health"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
	"example.com/ttrpc-starter/ttrpcx/reflection"
)

// Server is a ttrpc server with everything that this package adds. It has no Shutdown method: it stops when the context
// of Serve ends, and lets open calls finish.
//
// Each call passes, from the outside in: the log, the recovery from panics, the count of calls and their messages, the
// deadline of CallTimeout, the check that the answer can be sent, and the interceptors of ServerOptions. Package
// interceptor describes them.
type Server struct {
	// TTRPC is the ttrpc server that Server uses. Register services with Server instead. A service that is registered
	// with TTRPC has no interceptors around its streams, because ttrpc has none there, and reflection does not list it.
	TTRPC *ttrpc.Server

	// Health answers health checks, as the service grpc.health.v1.Health, if the program registers none of that name.
	// Each service that is registered is Serving, and NotServing once the server stops. Set changes that.
	Health *health.Server

	options   ServerOptions
	intercept ttrpc.StreamServerInterceptor
	services  map[string]*ttrpc.ServiceDesc
}

// NewServer returns a server that does not listen yet. Its error is that of ServerOptions.Validate.
func NewServer(options ServerOptions) (*Server, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	options = options.WithDefaults()
	intercept := interceptor.Chain(append([]ttrpc.StreamServerInterceptor{
		interceptor.Log(interceptor.LogOptions{Logger: options.Logger, Peer: peerAttr}),
		interceptor.Recover(options.Logger),
		interceptor.Memory(),
		interceptor.Deadline(options.CallTimeout),
		interceptor.Sendable(),
	}, options.Interceptors...)...)
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(interceptor.Unary(intercept)))
	if err != nil {
		return nil, err
	}
	return &Server{
		TTRPC: server, Health: health.New(), options: options, intercept: intercept,
		services: map[string]*ttrpc.ServiceDesc{},
	}, nil
}

// peerAttr returns the caller as an attribute for the log.
func peerAttr(ctx context.Context) slog.Attr {
	p, ok := PeerFromContext(ctx)
	if !ok {
		return slog.Attr{}
	}
	return slog.Any("peer", p)
}

// RegisterService registers a service by its full name, such as "package.Service", as ttrpc.Server.RegisterService
// does. In addition, the interceptors run around the service's streams, and reflection lists the service if its .proto
// file is linked into the program. It panics if the name is registered already. It must not be called after Serve.
func (s *Server) RegisterService(name string, desc *ttrpc.ServiceDesc) {
	s.register(name, desc)
	s.Health.Set(name, health.Serving)
}

func (s *Server) register(name string, desc *ttrpc.ServiceDesc) {
	desc = interceptor.Streams(name, desc, s.intercept)
	s.TTRPC.RegisterService(name, desc)
	s.services[name] = desc
}

// ListenAndServe listens at ServerOptions.Address, and serves until ctx ends: see Serve.
func (s *Server) ListenAndServe(ctx context.Context) error {
	l, err := Listen(ctx, s.options)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Serve serves the calls that arrive at l, until ctx ends and the open calls have finished: see the function Serve.
// Listen may have made l with other options than the server's. s cannot serve again.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	more := s.answerChecks()
	if err := s.reflect(l, more); err != nil {
		_ = l.Close()
		return err
	}
	known := maps.Clone(s.services)
	maps.Copy(known, l.options.Services)
	l.options.Services = known
	logger := s.options.Logger
	logger.Info("server start", "address", l.String())
	err := serve(ctx, s.TTRPC, l, s.Health.Shutdown)
	_ = loglimit.Flush(ctx, logger.Handler()) // a log that cannot be written is not an error of the server
	if err != nil {
		logger.Error("server stop", "error", err)
		return err
	}
	logger.Info("server stop")
	return nil
}

// answerChecks registers the health service, unless the program has its own. It returns the files of what it registers.
func (s *Server) answerChecks() []protoreflect.FileDescriptor {
	if s.services[health.Name] != nil {
		return nil
	}
	for name, desc := range s.Health.Services() {
		s.register(name, desc)
	}
	return []protoreflect.FileDescriptor{health.File()}
}

// reflect registers the reflection services if l is to have them. If not, it only makes them known, so that a client
// that asks for them gets Unimplemented. A stream on an unknown service would end the client's connection. more are
// files of services that are not linked into the program.
func (s *Server) reflect(l *Listener, more []protoreflect.FileDescriptor) error {
	var listed []string
	for name := range s.services {
		_, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err == nil || name == health.Name && more != nil {
			listed = append(listed, name)
		}
	}
	services, err := reflection.Services(reflection.Options{Services: listed, More: more})
	if err != nil {
		return err
	}
	on := s.options.Reflection
	for name, desc := range services {
		switch _, own := s.services[name]; {
		case own: // the program's own reflection service
		case on != nil && *on || on == nil && l.Addr().Network() == "unix":
			s.register(name, desc)
		default:
			s.services[name] = desc
		}
	}
	return nil
}
