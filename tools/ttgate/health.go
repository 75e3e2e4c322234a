package main

import (
	"context"
	"sync"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/ttrpc-starter/tools/grpcconn"
)

// statuses mirror the health of the server, so that probes and balancers see it. While the server is down, nothing is
// serving.
type statuses struct {
	*health.Server

	mu    sync.Mutex
	known map[string]bool // services that have had a status
}

func newStatuses() *statuses {
	s := &statuses{Server: health.NewServer(), known: map[string]bool{"": true}}
	s.clear()
	return s
}

// clear sets all statuses to NOT_SERVING.
func (s *statuses) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for service := range s.known {
		s.SetServingStatus(service, healthv1.HealthCheckResponse_NOT_SERVING)
	}
}

// set sets the status of a service, unless ctx has ended: then the server has gone.
func (s *statuses) set(ctx context.Context, service string, current healthv1.HealthCheckResponse_ServingStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.known[service] = true
		s.SetServingStatus(service, current)
	}
}

// follow mirrors the statuses that the server has now and changes later, until ctx ends. A server without health checks
// is serving.
func (s *statuses) follow(ctx context.Context, conn *grpcconn.Conn, schema *schema) error {
	services := append([]string{""}, schema.names()...)
	if schema.methods[healthv1.Health_Watch_FullMethodName] == nil {
		for _, service := range services {
			s.set(ctx, service, healthv1.HealthCheckResponse_SERVING)
		}
		return nil
	}
	client := healthv1.NewHealthClient(conn)
	for _, service := range services {
		if service == healthv1.Health_ServiceDesc.ServiceName {
			continue
		}
		watch, err := client.Watch(ctx, &healthv1.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		first, err := watch.Recv()
		if err != nil {
			return err
		}
		s.set(ctx, service, first.GetStatus())
		go func() {
			for {
				resp, err := watch.Recv()
				if err != nil {
					s.set(ctx, service, healthv1.HealthCheckResponse_NOT_SERVING)
					return
				}
				s.set(ctx, service, resp.GetStatus())
			}
		}()
	}
	return nil
}
