package ttrpcx

import (
	"context"
	"log/slog"
	"maps"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
	"example.com/ttrpc-starter/ttrpcx/reflection"
)

// Server is a ttrpc server with all that this package adds to one. It has no Shutdown: it stops when the context of Serve
// ends, and loses no call.
//
// From the outside in, each call passes: the log, the recovery from panics, the deadline of CallTimeout, the check that its
// answer can be sent, and the interceptors of ServerOptions. Package interceptor says what each does.
type Server struct {
	// TTRPC is the server inside. A service that is registered with it and not with Server has no interceptors around its
	// streams, because ttrpc installs none, and reflection does not list it.
	TTRPC *ttrpc.Server

	options   ServerOptions
	intercept ttrpc.StreamServerInterceptor
	services  map[string]*ttrpc.ServiceDesc
}

// NewServer returns a server that does not listen yet. A refused option is an error as Validate's.
func NewServer(options ServerOptions) (*Server, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	options = options.WithDefaults()
	intercept := interceptor.Chain(append([]ttrpc.StreamServerInterceptor{
		interceptor.Log(interceptor.LogOptions{Logger: options.Logger, Peer: peerAttr}),
		interceptor.Recover(options.Logger),
		interceptor.Deadline(options.CallTimeout),
		interceptor.Sendable(),
	}, options.Interceptors...)...)
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(interceptor.Unary(intercept)))
	if err != nil {
		return nil, err
	}
	return &Server{TTRPC: server, options: options, intercept: intercept, services: map[string]*ttrpc.ServiceDesc{}}, nil
}

// peerAttr is the caller, for the log.
func peerAttr(ctx context.Context) slog.Attr {
	p, ok := PeerFromContext(ctx)
	if !ok {
		return slog.Attr{}
	}
	return slog.Any("peer", p)
}

// RegisterService registers a service by its full name, such as "package.Service". It is what ttrpc.Server has, except
// that the service's streams run inside the interceptors and that reflection lists it, if its .proto file is linked in. It panics if the name is taken, and
// must not be called after Serve.
func (s *Server) RegisterService(name string, desc *ttrpc.ServiceDesc) {
	desc = interceptor.Streams(name, desc, s.intercept)
	s.TTRPC.RegisterService(name, desc)
	s.services[name] = desc
}

// ListenAndServe listens at ServerOptions.Address and serves until ctx ends: see Serve.
func (s *Server) ListenAndServe(ctx context.Context) error {
	l, err := Listen(ctx, s.options)
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Serve serves the calls that come in at l, which Listen has made with the server's own options or others. It returns when
// ctx has ended and the open calls have, as the function Serve does; s cannot serve again.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	if err := s.reflect(l); err != nil {
		_ = l.Close()
		return err
	}
	known := maps.Clone(s.services)
	maps.Copy(known, l.options.Services)
	l.options.Services = known
	logger := s.options.Logger
	logger.Info("server start", "address", l.String())
	if err := Serve(ctx, s.TTRPC, l); err != nil {
		logger.Error("server stop", "error", err)
		return err
	}
	logger.Info("server stop")
	return nil
}

// reflect registers the reflection services if l is to have them. If not, they are still known: who asks for them gets
// Unimplemented, where a stream to a service that nobody has heard of would cost the connection.
func (s *Server) reflect(l *Listener) error {
	var listed []string
	for name := range s.services {
		if _, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
			listed = append(listed, name)
		}
	}
	services, err := reflection.Services(reflection.Options{Services: listed})
	if err != nil {
		return err
	}
	on := s.options.Reflection
	for name, desc := range services {
		if on != nil && *on || on == nil && l.Addr().Network() == "unix" {
			s.RegisterService(name, desc)
		} else {
			s.services[name] = desc
		}
	}
	return nil
}
