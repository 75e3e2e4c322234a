package main

import (
	"context"
	"sync"
	"time"

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
	var opening sync.Mutex // conn makes one call after the other
	open := func(service string) (healthv1.Health_WatchClient, error) {
		opening.Lock()
		defer opening.Unlock()
		watch, err := client.Watch(ctx, &healthv1.HealthCheckRequest{Service: service})
		if err != nil {
			return nil, err
		}
		first, err := watch.Recv()
		if err == nil {
			s.set(ctx, service, first.GetStatus())
		}
		return watch, err
	}
	for _, service := range services {
		if service == healthv1.Health_ServiceDesc.ServiceName {
			continue
		}
		watch, err := open(service)
		if err != nil {
			return err
		}
		go func() {
			for ctx.Err() == nil {
				if resp, err := watch.Recv(); err == nil {
					s.set(ctx, service, resp.GetStatus())
					continue
				}
				select { // a server may end calls that take long
				case <-time.After(minPause):
				case <-ctx.Done():
					return
				}
				if again, err := open(service); err == nil {
					watch = again
				} else {
					s.set(ctx, service, healthv1.HealthCheckResponse_NOT_SERVING)
				}
			}
		}()
	}
	return nil
}
