package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	connectcors "connectrpc.com/cors"
	"connectrpc.com/vanguard"
	"github.com/rs/cors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

// gate takes calls of all protocols. Each becomes a call of a gRPC server, which passes it on.
type gate struct {
	*options
	backend *backend
	grpc    *grpc.Server
	metrics *metrics
	tracing *tracing    // nil if nobody asks for it
	tls     *tls.Config // nil with -insecure

	connections, calls, memory *quota
}

func newGate(o *options) (*gate, error) {
	g := &gate{
		options: o, connections: newQuota(o.maxConnections), calls: newQuota(o.maxCalls),
		memory: newQuota(int(o.maxMemory)),
	}
	if !o.insecure {
		var err error
		if g.tls, err = o.tls.ServerConfig(o.log, "h2", "http/1.1"); err != nil {
			return nil, err
		}
	}
	g.backend = &backend{options: o, statuses: newStatuses(), handler: g.transcoder}
	g.metrics = newMetrics(g)
	var err error
	if g.tracing, err = newTracing(o); err != nil {
		return nil, err
	}
	g.grpc = g.newServer(grpc.StatsHandler(receipts{}))
	return g, nil
}

// newServer returns a gRPC server that passes calls on.
func (g *gate) newServer(options ...grpc.ServerOption) *grpc.Server {
	options = append([]grpc.ServerOption{
		grpc.UnknownServiceHandler(g.forward),
		grpc.MaxRecvMsgSize(int(g.maxMessage)),
		grpc.StreamInterceptor(g.observeStream),
		grpc.UnaryInterceptor(g.observeUnary),
	}, options...)
	if g.tracing != nil {
		options = append(options, grpc.StatsHandler(g.tracing))
	}
	s := grpc.NewServer(options...)
	healthv1.RegisterHealthServer(s, g.backend.statuses)
	r := reflection.ServerOptions{Services: g.backend, DescriptorResolver: g.backend, ExtensionResolver: g.backend}
	v1.RegisterServerReflectionServer(s, reflection.NewServerV1(r))
	v1alpha.RegisterServerReflectionServer(s, reflection.NewServer(r))
	return s
}

// transcoder returns a handler that turns Connect, gRPC-Web, JSON and REST into gRPC.
func (g *gate) transcoder(s *schema) (http.Handler, error) {
	var services []*vanguard.Service
	for _, d := range s.services {
		services = append(services, vanguard.NewServiceWithSchema(d, http.HandlerFunc(g.transcoded),
			vanguard.WithTargetProtocols(vanguard.ProtocolGRPC),
			vanguard.WithTargetCodecs(vanguard.CodecProto),
			vanguard.WithNoTargetCompression(),
			vanguard.WithMaxMessageBufferBytes(uint32(g.maxMessage)),
			vanguard.WithTypeResolver(dynamicpb.NewTypes(s.files)),
		))
	}
	return vanguard.NewTranscoder(services, vanguard.WithCodec(func(res vanguard.TypeResolver) vanguard.Codec {
		return jsonCodec{vanguard.NewJSONCodec(res)}
	}))
}

// jsonCodec writes JSON without spaces. Package protojson changes its spaces from build to build.
type jsonCodec struct{ *vanguard.JSONCodec }

func (c jsonCodec) MarshalAppend(b []byte, m proto.Message) ([]byte, error) {
	text, err := c.MarshalAppendStable(nil, m)
	return append(b, text...), err
}

// transcoded takes a call that vanguard has made one of gRPC.
func (g *gate) transcoded(w http.ResponseWriter, r *http.Request) {
	g.grpc.ServeHTTP(w, g.newBody(r, r.Context().Value(interruptKey{}).(func())))
}

// interruptKey is the context's key for a function that ends a Read of the body which waits for the client.
type interruptKey struct{}

// errCalls is the error of a call that is over -max-calls.
var errCalls = status.Error(codes.ResourceExhausted, "too many calls are open at the gate")

// ServeHTTP takes a call.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOf(r.RemoteAddr)
	if !g.calls.take(host, 1) {
		fail(w, r, errCalls)
		return
	}
	defer g.calls.give(host, 1)
	// grpc-web has the same beginning.
	if kind := r.Header.Get("Content-Type"); r.ProtoMajor == 2 &&
		(kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")) {
		g.grpc.ServeHTTP(w, g.newBody(r, nil))
		return
	}
	l, err := g.backend.current()
	if err != nil {
		fail(w, r, err)
		return
	}
	if r.Method == http.MethodPost && l.methods[r.URL.Path] != nil {
		asConnect(r.Header)
		if r.ContentLength > int64(g.maxMessage) {
			fail(w, r, status.Errorf(codes.ResourceExhausted, "message of %d bytes is over the limit of %d",
				r.ContentLength, g.maxMessage))
			return
		}
	}
	interrupt := func() {
		until := time.Now()
		if r.ProtoMajor == 1 { // where the client does not read before it has sent all
			until = until.Add(g.ioTimeout)
		}
		_ = http.NewResponseController(w).SetReadDeadline(until) // package http has it for both versions
	}
	l.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), interruptKey{}, interrupt)))
}

// fail answers in the protocol of the request, or with plain text if it has none.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	s := status.Convert(err)
	if writer := connect.NewErrorWriter(); writer.IsSupported(r) {
		_ = writer.Write(w, r, connect.NewError(connect.Code(s.Code()), errors.New(s.Message()))) // the client has gone
		return
	}
	code := http.StatusServiceUnavailable
	if s.Code() == codes.ResourceExhausted {
		code = http.StatusTooManyRequests
	}
	http.Error(w, s.Message(), code)
}

// asConnect makes a request that somebody has written by hand one of the Connect protocol, which differs from plain
// JSON in a header only: https://connectrpc.com/docs/protocol/#unary-request. The type of a form is what curl sends if
// it is not told another one. Pages cannot make use of that: see crossOrigin.
func asConnect(h http.Header) {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch kind {
	case "", "application/x-www-form-urlencoded":
		kind = "application/json"
	case "application/json", "application/proto":
	default:
		return
	}
	h.Set("Content-Type", kind)
	h.Set("Connect-Protocol-Version", "1")
}

// crossOrigin returns the gate's handler for browsers, too: pages of the named origins may call, and no others. Whoever
// is no browser is not restricted.
func (g *gate) crossOrigin() (http.Handler, error) {
	protection := http.NewCrossOriginProtection()
	for _, origin := range g.origins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("-cors-origin: %w", err)
		}
	}
	h := protection.Handler(g)
	if len(g.origins) == 0 { // which would mean all of them to package cors
		return h, nil
	}
	return cors.New(cors.Options{
		AllowedOrigins: g.origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: []string{"*"},
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         int(time.Hour / time.Second),
	}).Handler(h), nil
}
