package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

// httpServer returns the HTTP server.
func (g *gate) httpServer() (*http.Server, error) {
	handler, err := g.crossOrigin()
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(g.tls != nil)
	protocols.SetUnencryptedHTTP2(g.tls == nil)
	return &http.Server{
		Handler:           handler,
		TLSConfig:         g.tls,
		Protocols:         protocols,
		ReadHeaderTimeout: g.ioTimeout,
		IdleTimeout:       4 * g.ioTimeout,
		MaxHeaderBytes:    int(g.maxHeader),
		ErrorLog:          g.errorLog(),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: g.maxStreams,
			// What is not read of one stream leaves less of the connection's window to the others.
			MaxReceiveBufferPerConnection: 4<<20 - 1, // the most that package http takes
			MaxReceiveBufferPerStream:     64 << 10,
			SendPingTimeout:               g.ioTimeout, // finds out clients that have gone
			PingTimeout:                   g.ioTimeout,
			WriteByteTimeout:              g.ioTimeout,
		},
	}, nil
}

// limitStream refuses calls over -max-calls, as ServeHTTP does for the other server.
func (g *gate) limitStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	return g.limitCall(stream.Context(), func() error { return h(srv, stream) })
}

func (g *gate) limitUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler,
) (resp any, err error) {
	err = g.limitCall(ctx, func() error {
		resp, err = h(ctx, req)
		return err
	})
	return resp, err
}

func (g *gate) limitCall(ctx context.Context, call func() error) error {
	host := ""
	if p, ok := peer.FromContext(ctx); ok {
		host = hostOf(p.Addr.String())
	}
	if !g.calls.take(host, 1) {
		return errCalls
	}
	defer g.calls.give(host, 1)
	return call()
}

// grpcServer returns the server of -listen-grpc, which has grpc-go's own HTTP/2. That takes half as long as package
// http's, and gives no way to count what has arrived of a message.
func (g *gate) grpcServer() (*grpc.Server, error) {
	secure := insecure.NewCredentials()
	if g.tls != nil {
		config, err := g.options.tls.ServerConfig(g.log, "h2")
		if err != nil {
			return nil, err
		}
		secure = credentials.NewTLS(config)
	}
	return g.newServer(
		grpc.Creds(secure),
		grpc.ChainStreamInterceptor(g.limitStream),
		grpc.ChainUnaryInterceptor(g.limitUnary),
		grpc.MaxConcurrentStreams(uint32(g.maxStreams)),
		grpc.MaxHeaderListSize(uint32(g.maxHeader)),
		grpc.StaticStreamWindowSize(64<<10), // or it grows up to 16 MiB
		grpc.StaticConnWindowSize(4<<20),
		grpc.ConnectionTimeout(g.ioTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 4 * g.ioTimeout, Time: g.ioTimeout, Timeout: g.ioTimeout,
		}),
		// A client that asks more often is sent away: gRPC's own ask each 10 s at most.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 5 * time.Second, PermitWithoutStream: true,
		}),
	), nil
}

// listenAndServe serves until ctx ends and the open calls have ended.
func (g *gate) listenAndServe(ctx context.Context) error {
	s := servers{gate: g, served: make(chan error, 2)}
	defer s.close()
	if err := s.listen(ctx); err != nil {
		return err
	}
	stopMetrics, err := g.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer stopMetrics()

	backendCtx, stopBackend := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackend()
	go g.backend.run(backendCtx)
	if g.insecure {
		g.log.Warn("serving without TLS: anybody on the network can read and change calls")
	}
	s.start()
	select {
	case err := <-s.served:
		return err
	case <-ctx.Done():
	}
	return s.stop(ctx)
}

// servers are what clients connect to.
type servers struct {
	*gate
	http      *http.Server
	grpc      *grpc.Server // nil without -listen-grpc
	listeners []net.Listener
	served    chan error
}

func (s *servers) listen(ctx context.Context) (err error) {
	add := func(flag, address string) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen at %s: %w", flag, err)
		}
		s.listeners = append(s.listeners, limited{l, s.gate})
		return nil
	}
	if s.http, err = s.httpServer(); err != nil {
		return err
	}
	if err := add("-listen", s.options.listen); err != nil || s.listenGRPC == "" {
		return err
	}
	if s.grpc, err = s.grpcServer(); err != nil {
		return err
	}
	return add("-listen-grpc", s.listenGRPC)
}

func (s *servers) start() {
	attrs := []any{"address", "tcp://" + s.listeners[0].Addr().String(), "backend", s.server.Address}
	go func() {
		if s.tls != nil {
			s.served <- s.http.ServeTLS(s.listeners[0], "", "")
		} else {
			s.served <- s.http.Serve(s.listeners[0])
		}
	}()
	if s.grpc != nil {
		attrs = append(attrs, "grpc-address", "tcp://"+s.listeners[1].Addr().String())
		go func() { s.served <- s.grpc.Serve(s.listeners[1]) }()
	}
	s.log.Info("gate start", attrs...)
}

func (s *servers) close() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// stop lets open calls finish.
func (s *servers) stop(ctx context.Context) error {
	s.close() // nobody is to come while the open calls are counted
	defer s.tracing.stop(s.shutdown)
	s.backend.statuses.Shutdown()
	if open := s.calls.taken(); open > 0 {
		s.log.Info("waiting for open calls", "calls", open, "timeout", s.shutdown)
	}
	timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.shutdown)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if s.grpc != nil {
			s.grpc.GracefulStop()
		}
	}()
	err := s.http.Shutdown(timed)
	select {
	case <-stopped:
	case <-timed.Done():
		err = timed.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("stop: %d calls were cut off after %v", s.calls.taken(), s.shutdown)
		_ = s.http.Close()
		if s.grpc != nil {
			s.grpc.Stop()
		}
	}
	if err != nil {
		s.log.Error("gate stop", "error", err)
		return err
	}
	s.log.Info("gate stop")
	return nil
}
