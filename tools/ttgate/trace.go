package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// tracing records a span for each call and tells the server of it, in the metadata that containerd/otelttrpc reads.
type tracing struct {
	stats.Handler
	propagation.TextMapPropagator
	provider *trace.TracerProvider
}

// newTracing returns nil unless the environment asks for tracing by OpenTelemetry's variables:
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
func newTracing(o *options) (*tracing, error) {
	asked := slices.ContainsFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "OTEL_") })
	if !asked || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	exporter, err := autoexport.NewSpanExporter(context.Background())
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	name := resource.WithAttributes(attribute.String("service.name", "ttgate"))
	res, err := resource.New(context.Background(), name, resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		o.log.Warn("OpenTelemetry", "error", err)
	}))
	t := &tracing{
		TextMapPropagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		provider:          trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(res)),
	}
	t.Handler = otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(t))
	return t, nil
}

// carry adds the span of ctx to the metadata of the call to the server.
func (t *tracing) carry(ctx context.Context, md metadata.MD) {
	if t != nil {
		t.Inject(ctx, carrier(md))
	}
}

// stop sends what has not been sent yet, within the timeout.
func (t *tracing) stop(timeout time.Duration) {
	if t != nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_ = t.provider.Shutdown(ctx) // the error handler is told
	}
}

// carrier is metadata as propagation.TextMapCarrier.
type carrier metadata.MD

func (c carrier) Get(key string) string { return strings.Join(metadata.MD(c).Get(key), ",") }
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }
func (c carrier) Keys() (keys []string) {
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
