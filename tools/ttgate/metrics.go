package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// metrics are what Prometheus reads.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  prometheus.Counter
}

func newMetrics(g *gate) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ttgate_calls_total", Help: "Calls that have ended, by method and status code.",
	}, []string{"method", "code"})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "ttgate_call_duration_seconds", Help: "How long calls took, streams from their start to their end.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	}, []string{"method"})
	m.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ttgate_connections_refused_total", Help: "Connections that were over -max-connections.",
	})
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value()) })
	}
	up := func() int {
		if g.backend.up.Load() == nil {
			return 0
		}
		return 1
	}
	m.registry.MustRegister(m.calls, m.seconds, m.refused,
		gauge("ttgate_calls_open", "Calls that are open.", g.calls.taken),
		gauge("ttgate_connections", "Open connections of clients.", g.connections.taken),
		gauge("ttgate_request_bytes", "Bytes of requests that are arriving.", g.memory.taken),
		gauge("ttgate_backend_up", "1 if the ttrpc server is there.", up),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// serveMetrics serves /metrics if the options say so. stop ends that.
func (g *gate) serveMetrics(ctx context.Context) (stop func(), err error) {
	if g.options.metrics == "" {
		return func() {}, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", g.options.metrics)
	if err != nil {
		return nil, fmt.Errorf("listen at -metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: g.ioTimeout, ErrorLog: g.errorLog()}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("metrics are not served any more", "error", err)
		}
	}()
	g.log.Info("metrics start", "address", "http://"+l.Addr().String()+"/metrics")
	return func() { _ = server.Close() }, nil
}

// observe counts and logs a call, and turns a panic into its error.
func (g *gate) observe(ctx context.Context, method string, call func() error) (err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("panic", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the gate has failed: its log tells why")
		}
		code, took := status.Code(err), time.Since(start)
		attrs := []any{"method", method, "code", code.String(), "duration", took}
		if p, ok := peer.FromContext(ctx); ok {
			attrs = append(attrs, "peer", p.Addr.String())
		}
		if err != nil {
			g.log.Warn("call failed", append(attrs, "error", status.Convert(err).Message())...)
		} else {
			g.log.Info("call passed", attrs...)
		}
		label := g.label(method)
		g.metrics.calls.WithLabelValues(label, code.String()).Inc()
		g.metrics.seconds.WithLabelValues(label).Observe(took.Seconds())
	}()
	return call()
}

// label returns the method if there is such a one, because callers could make up any number of names.
func (g *gate) label(method string) string {
	if l := g.backend.up.Load(); l != nil && l.methods[method] != nil {
		return method
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	for _, m := range g.grpc.GetServiceInfo()[service].Methods { // the gate's own
		if m.Name == name {
			return method
		}
	}
	return "unknown"
}

func (g *gate) observeStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return g.observe(stream.Context(), info.FullMethod, func() error { return handler(srv, stream) })
}

func (g *gate) observeUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (resp any, err error) {
	err = g.observe(ctx, info.FullMethod, func() error {
		resp, err = handler(ctx, req)
		return err
	})
	return resp, err
}
