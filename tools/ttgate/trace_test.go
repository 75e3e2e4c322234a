package main_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// TestTracing has a collector get the span of a call, which continues the caller's trace and which the server is told.
func TestTracing(t *testing.T) {
	received := make(chan *collector.ExportTraceServiceRequest, 10)
	collect := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		req := new(collector.ExportTraceServiceRequest)
		if err := proto.Unmarshal(body, req); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		received <- req
	}))
	defer collect.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collect.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_SERVICE_NAME", "mine")
	_, backend := probe(t)
	g := gate(t, backend)

	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+trace+"-"+parent+"-01")
	told := seen(t, ctx, g.grpc())["traceparent"]
	g.Signal(os.Interrupt)
	if g.ExitCode() != 0 {
		t.Errorf("exit code %d", g.ExitCode())
	}
	close(received) // the gate has sent all before its end
	for req := range received {
		for _, resource := range req.GetResourceSpans() {
			if !strings.Contains(resource.GetResource().String(), `"mine"`) {
				t.Errorf("the resource is %v", resource.GetResource())
			}
			for _, s := range resource.GetScopeSpans()[0].GetSpans() {
				if s.GetName() != "probe.v1.Probe/Unary" {
					continue
				}
				want := "00-" + trace + "-" + hex.EncodeToString(s.GetSpanId()) + "-01"
				if hex.EncodeToString(s.GetParentSpanId()) != parent || len(told) != 1 || told[0] != want {
					t.Errorf("the span is %v, and the server was told %q, want %q", s, told, want)
				}
				return
			}
		}
	}
	t.Error("the collector got no span of the call")
}
