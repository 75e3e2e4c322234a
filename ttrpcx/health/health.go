// Package health offers gRPC's health checks on a ttrpc server: it tells clients, load balancers and probes which
// services can be called: https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
package health

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"example.com/ttrpc-starter/ttrpcx/internal/fields"
)

// Status is a ServingStatus of gRPC's health.proto.
type Status int32

// The statuses of services.
const (
	Unknown        Status = iota
	Serving               // the service can be called
	NotServing            // it exists, but cannot be called now
	ServiceUnknown        // only in answers to Watch: the server has no status for such a service
)

// Name is the full name of the service.
const Name = "grpc.health.v1.Health"

// Field numbers of the messages.
const (
	requestService   protowire.Number = 1
	responseStatus   protowire.Number = 1
	responseStatuses protowire.Number = 1
	entryKey         protowire.Number = 1
	entryValue       protowire.Number = 2
)

// Server has the statuses of services. The empty name stands for the server as a whole. The methods may be called from
// several goroutines.
type Server struct {
	mu       sync.Mutex
	statuses map[string]Status
	stopped  bool
	changed  chan struct{} // closed when something above changes
}

// New returns a Server in which only the server as a whole has a status: Serving.
func New() *Server {
	return &Server{statuses: map[string]Status{"": Serving}, changed: make(chan struct{})}
}

// Set sets the status of a service, which is a full name such as "package.Service", or empty for the server as a whole.
// After Shutdown, it does nothing.
func (s *Server) Set(service string, status Status) {
	s.change(func() { s.statuses[service] = status })
}

// Shutdown sets all statuses to NotServing, for ever. Clients that watch get that, and then the error Unavailable, so
// that they keep no server from stopping.
func (s *Server) Shutdown() {
	s.change(func() {
		s.stopped = true
		for service := range s.statuses {
			s.statuses[service] = NotServing
		}
	})
}

func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		f()
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Services returns the service by its name. Register it with ttrpc.Server.RegisterService, and give it to
// wire.GuardOptions.Services or ttrpcx.ServerOptions.Services, because it is not in protobuf's registry.
func (s *Server) Services() map[string]*ttrpc.ServiceDesc {
	return map[string]*ttrpc.ServiceDesc{Name: {
		Methods: map[string]ttrpc.Method{"Check": s.check, "List": s.list},
		Streams: map[string]ttrpc.Stream{"Watch": {Handler: s.watch, StreamingServer: true}},
	}}
}

func (s *Server) check(_ context.Context, unmarshal func(any) error) (any, error) {
	service, err := requested(unmarshal)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	current, ok := s.statuses[service]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "service %q has no status here", service)
	}
	return fields.Raw(response(current)), nil
}

func (s *Server) list(_ context.Context, unmarshal func(any) error) (any, error) {
	if err := unmarshal(fields.Raw(nil)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	for _, service := range slices.Sorted(maps.Keys(s.statuses)) {
		entry := fields.AppendString(nil, entryKey, service)
		entry = fields.AppendBytes(entry, entryValue, response(s.statuses[service]))
		b = fields.AppendBytes(b, responseStatuses, entry)
	}
	return fields.Raw(b), nil
}

// watch sends the status of a service now and whenever it has changed. A client that is slow misses what was not the
// last change.
func (s *Server) watch(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
	service, err := requested(stream.RecvMsg)
	if err != nil {
		return nil, err
	}
	for sent := Status(-1); ; {
		current, stopped, changed := s.look(service)
		if current != sent {
			if err := stream.SendMsg(fields.Raw(response(current))); err != nil {
				return nil, err
			}
			sent = current
		}
		if stopped {
			return nil, status.Error(codes.Unavailable, "server is shutting down")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Server) look(service string) (current Status, stopped bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current, ok := s.statuses[service]
	if !ok {
		current = ServiceUnknown
	}
	return current, s.stopped, s.changed
}

// requested returns the service of a HealthCheckRequest.
func requested(unmarshal func(any) error) (service string, err error) {
	req := fields.Raw(nil)
	if err := unmarshal(req); err != nil {
		return "", err
	}
	err = fields.Each(req.ProtoReflect().GetUnknown(),
		func(field protowire.Number, t protowire.Type, v []byte, _ uint64) error {
			if field == requestService && t == protowire.BytesType {
				return fields.SetString(&service, v)
			}
			return nil
		})
	if err != nil {
		return "", status.Errorf(codes.InvalidArgument, "health request: %v", err)
	}
	return service, nil
}

// response returns an encoded HealthCheckResponse.
func response(s Status) []byte {
	if s == Unknown {
		return nil // the default of an enum is not encoded
	}
	return fields.AppendVarint(nil, responseStatus, uint64(s))
}
