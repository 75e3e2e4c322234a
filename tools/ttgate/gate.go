package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"net"
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
	options := []grpc.ServerOption{
		grpc.UnknownServiceHandler(g.forward),
		grpc.MaxRecvMsgSize(int(o.maxMessage)),
		grpc.StatsHandler(receipts{}),
		grpc.StreamInterceptor(g.observeStream),
		grpc.UnaryInterceptor(g.observeUnary),
	}
	if g.tracing != nil {
		options = append(options, grpc.StatsHandler(g.tracing))
	}
	g.grpc = grpc.NewServer(options...)
	healthv1.RegisterHealthServer(g.grpc, g.backend.statuses)
	r := reflection.ServerOptions{Services: g.backend, DescriptorResolver: g.backend, ExtensionResolver: g.backend}
	v1.RegisterServerReflectionServer(g.grpc, reflection.NewServerV1(r))
	v1alpha.RegisterServerReflectionServer(g.grpc, reflection.NewServer(r))
	return g, nil
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

// ServeHTTP takes a call.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOf(r.RemoteAddr)
	if !g.calls.take(host, 1) {
		fail(w, r, status.Error(codes.ResourceExhausted, "too many calls are open at the gate"))
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

// listenAndServe serves until ctx ends and the open calls have ended.
func (g *gate) listenAndServe(ctx context.Context) error {
	server, err := g.httpServer()
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", g.listen)
	if err != nil {
		return fmt.Errorf("listen at -listen: %w", err)
	}
	defer func() { _ = l.Close() }()
	stopMetrics, err := g.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer stopMetrics()

	backendCtx, stopBackend := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackend()
	go g.backend.run(backendCtx)
	served := make(chan error, 1)
	go func() {
		limited := limited{l, g}
		if g.tls != nil {
			served <- server.ServeTLS(limited, "", "")
		} else {
			served <- server.Serve(limited)
		}
	}()
	if g.insecure {
		g.log.Warn("serving without TLS: anybody on the network can read and change calls")
	}
	g.log.Info("gate start", "address", "tcp://"+l.Addr().String(), "backend", g.server.Address)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	_ = l.Close() // nobody is to come while the open calls are counted
	return g.stop(ctx, server)
}

// stop lets open calls finish.
func (g *gate) stop(ctx context.Context, server *http.Server) error {
	defer g.tracing.stop(g.shutdown)
	g.backend.statuses.Shutdown()
	open := g.calls.taken()
	if open > 0 {
		g.log.Info("waiting for open calls", "calls", open, "timeout", g.shutdown)
	}
	timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.shutdown)
	defer cancel()
	err := server.Shutdown(timed)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("stop: %d calls were cut off after %v", g.calls.taken(), g.shutdown)
		_ = server.Close()
	}
	if err != nil {
		g.log.Error("gate stop", "error", err)
		return err
	}
	g.log.Info("gate stop")
	return nil
}
