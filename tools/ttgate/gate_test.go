package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/proctest"
	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
)

// unary makes a small call and returns its data.
func unary(ctx context.Context, conn *grpc.ClientConn, act probev1.Act) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := probev1.NewProbeClient(conn).Unary(ctx, &probev1.UnaryRequest{Act: act, Data: []byte("data")})
	return string(r.GetData()), err
}

// seen returns the metadata that arrives at the backend.
func seen(t *testing.T, ctx context.Context, conn *grpc.ClientConn) map[string][]string {
	t.Helper()
	text, err := unary(ctx, conn, probev1.Act_ACT_METADATA)
	if err != nil {
		t.Fatal(err)
	}
	md := map[string][]string{}
	if err := json.Unmarshal([]byte(text), &md); err != nil {
		t.Fatal(err)
	}
	return md
}

// certificates writes some, and returns their directory and clients' configurations with and without one.
func certificates(t *testing.T) (dir string, known, stranger *tls.Config) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command(proctest.Exe(bin, "certs"), "certs")
	cmd.Dir = dir
	if p := proctest.Run(t, cmd); p.ExitCode() != 0 {
		t.Fatal(p.Stderr())
	}
	dir = filepath.Join(dir, "certs")
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	stranger = &tls.Config{RootCAs: pool, ServerName: "localhost"}
	known = stranger.Clone()
	known.Certificates = []tls.Certificate{cert}
	return dir, known, stranger
}

// TestIdentity checks who the backend is told has called.
func TestIdentity(t *testing.T) {
	_, backend := probe(t)
	dir, known, stranger := certificates(t)
	files := []string{"-tls-cert", filepath.Join(dir, "server.pem"), "-tls-key", filepath.Join(dir, "server-key.pem")}
	mutual := startGate(t, append([]string{"-backend", backend, "-tls-ca", filepath.Join(dir, "ca.pem")}, files...)...)
	mutual.WaitFor("backend up")

	forged := metadata.AppendToOutgoingContext(t.Context(), "name", "koye", "bytes-bin", "\x00\xff", "name", "two",
		"x-ttgate-peer-subject", "CN=root", "X-TTGate-Peer-Address", "192.0.2.1:1", "x-ttgate-admin", "yes")
	for _, mutual := range []*running{mutual, mutual.alone()} {
		mutual.tls = known
		md := seen(t, forged, mutual.grpc())
		want := map[string][]string{
			"name": {"koye", "two"}, "bytes-bin": {"AP8"}, "x-ttgate-peer-subject": {"CN=client"},
		}
		address := strings.Join(md["x-ttgate-peer-address"], " ")
		if host, _, err := net.SplitHostPort(address); err != nil || host != "127.0.0.1" {
			t.Errorf("the address is %q, want one of 127.0.0.1", address)
		}
		delete(md, "x-ttgate-peer-address")
		if fmt.Sprint(md) != fmt.Sprint(want) {
			t.Errorf("the metadata is %v, want %v", md, want)
		}

		mutual.tls = stranger
		if _, err := unary(t.Context(), mutual.grpc(), 0); status.Code(err) != codes.Unavailable {
			t.Errorf("without a certificate: %v, want Unavailable", err)
		}
	}
	mutual.tls = stranger
	if resp, err := mutual.http(true).Get(mutual.url("/")); err == nil {
		t.Errorf("without a certificate: HTTP %s", resp.Status)
		_ = resp.Body.Close()
	}

	open := startGate(t, append([]string{"-backend", backend}, files...)...)
	open.WaitFor("backend up")
	open.tls = stranger
	md := seen(t, forged, open.grpc())
	if len(md["x-ttgate-peer-subject"])+len(md["x-ttgate-peer-name"])+len(md["x-ttgate-admin"]) > 0 {
		t.Errorf("without -tls-ca, the metadata is %v", md)
	}

	// A certificate that was replaced is used for the next connection.
	before := serverCertificate(t, open)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	again := exec.Command(proctest.Exe(bin, "certs"), "certs")
	again.Dir = filepath.Dir(dir)
	if p := proctest.Run(t, again); p.ExitCode() != 0 {
		t.Fatal(p.Stderr())
	}
	if bytes.Equal(before, serverCertificate(t, open)) {
		t.Error("the old certificate is still used")
	}
}

func serverCertificate(t *testing.T, g *running) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", g.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// TestRestart stops the backend and starts it again, with the gate running all the time.
func TestRestart(t *testing.T) {
	address := proctest.Socket(t)
	g := startGate(t, "-insecure", "-backend", address)
	conn := g.grpc()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantHealth := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if r, err := watch.Recv(); err != nil || r.GetStatus() != want {
			t.Fatalf("the health is %v, %v, want %v", r, err, want)
		}
	}
	for range 3 {
		wantHealth(healthv1.HealthCheckResponse_NOT_SERVING)
		if _, err := unary(ctx, conn, 0); status.Code(err) != codes.Unavailable {
			t.Errorf("without a backend: %v, want Unavailable", err)
		}
		resp, err := g.http(false).Post(g.url("/probe.v1.Probe/Unary"), "application/json", strings.NewReader("{}"))
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("without a backend: %v, %v, want HTTP 503", resp, err)
		}
		server := probeAt(t, address)
		wantHealth(healthv1.HealthCheckResponse_SERVING)
		if data, err := unary(ctx, conn, 0); err != nil || data != "data" {
			t.Errorf("%q, %v", data, err)
		}
		server.Signal(os.Interrupt)
		<-server.Ended()
	}
}

// TestDrain stops the gate while calls are open: they end, and new ones do not begin.
func TestDrain(t *testing.T) {
	server, backend := probe(t)
	g := gate(t, backend)
	both := []*running{g, g.alone()}
	var streams []probev1.Probe_EchoClient
	for _, g := range both {
		stream, err := probev1.NewProbeClient(g.grpc()).Echo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, stream)
	}
	echo := func() {
		t.Helper()
		for _, stream := range streams {
			if err := stream.Send(&probev1.EchoRequest{Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			if r, err := stream.Recv(); err != nil || string(r.GetData()) != "x" {
				t.Fatalf("%v, %v", r, err)
			}
		}
	}
	echo()
	g.Signal(os.Interrupt)
	g.WaitFor("waiting for open calls calls=2")
	echo()
	for i, stream := range streams {
		if _, err := unary(t.Context(), both[i].grpc(), 0); status.Code(err) != codes.Unavailable {
			t.Errorf("a new call: %v, want Unavailable", err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("the end is %v", err)
		}
	}
	if g.ExitCode() != 0 {
		t.Errorf("exit code %d", g.ExitCode())
	}

	short := gate(t, backend, "-shutdown-timeout", "100ms")
	hanging := make(chan error, 2)
	for _, g := range []*running{short, short.alone()} {
		client, name := probev1.NewProbeClient(g.grpc()), "at "+g.address
		go func() {
			_, err := client.Unary(t.Context(), &probev1.UnaryRequest{Act: probev1.Act_ACT_HANG, Data: []byte(name)})
			hanging <- err
		}()
		server.WaitFor("hang begins: " + name)
	}
	short.Signal(os.Interrupt)
	if short.ExitCode() != 1 || !strings.Contains(short.Stderr(), "stop: 2 calls were cut off after 100ms") {
		t.Errorf("exit code %d, want 1 with the number of calls:\n%s", short.ExitCode(), short.Stderr())
	}
	for range 2 {
		if err := <-hanging; status.Code(err) != codes.Unavailable {
			t.Errorf("the call that was cut off: %v, want Unavailable", err)
		}
	}
}

// TestBrowsers checks which pages may call.
func TestBrowsers(t *testing.T) {
	_, backend := probe(t)
	closed, open := gate(t, backend), gate(t, backend, "-cors-origin", "https://app.example")
	for _, c := range []struct {
		g            *running
		origin, site string
		code         int
		allowed      string
	}{
		{closed, "", "", 200, ""},
		{closed, "https://app.example", "cross-site", 403, ""},
		{closed, "http://" + closed.address, "same-origin", 200, ""},
		{open, "https://app.example", "cross-site", 200, "https://app.example"},
		{open, "https://evil.example", "cross-site", 403, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.g.url("/probe.v1.Probe/Unary"),
			strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
			req.Header.Set("Sec-Fetch-Site", c.site)
		}
		resp, err := c.g.http(false).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != c.code || got != c.allowed {
			t.Errorf("%q: HTTP %s, allowed %q; want %d, %q", c.origin, resp.Status, got, c.code, c.allowed)
		}
	}
}

// TestUnknown calls what is not there. None of it reaches the backend.
func TestUnknown(t *testing.T) {
	server, backend := probe(t)
	g := gate(t, backend)
	for _, method := range []string{"/probe.v1.Probe/Nothing", "/nothing.v1.None/Unary", "/probe.v1.Probe", "/x"} {
		err := g.grpc().Invoke(t.Context(), method, new(probev1.UnaryRequest), new(probev1.UnaryResponse))
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want Unimplemented", method, err)
		}
		resp, err := g.http(false).Post(g.url(method), "application/json", strings.NewReader("{}"))
		if err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v, want HTTP 404", method, resp, err)
		}
	}
	if strings.Contains(server.Stderr(), "Nothing") || strings.Contains(server.Stderr(), "nothing") {
		t.Error("the backend was asked")
	}
}

// TestHostile attacks the gate, and looks whether another client notices.
func TestHostile(t *testing.T) {
	_, backend := probe(t)
	for name, listener := range map[string]func(*running) *running{
		"all": func(g *running) *running { return g }, "grpc": (*running).alone,
	} {
		t.Run(name, func(t *testing.T) {
			attack(t, listener(gate(t, backend, "-max-connections", "400", "-io-timeout", "1s")))
		})
	}
}

func attack(t *testing.T, g *running) {
	conn := g.grpc()
	good := func(after string) {
		t.Helper()
		if data, err := unary(t.Context(), conn, 0); err != nil || data != "data" {
			t.Errorf("after %s: %q, %v", after, data, err)
		}
	}
	good("nothing")

	garbage := g.dial()
	_, _ = garbage.Write(bytes.Repeat([]byte("\xff\x00garbage"), 1_000_000/9))
	if _, err := io.ReadAll(garbage); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("garbage: %v", err)
	}
	good("garbage")

	reset := g.dial()
	if _, err := io.WriteString(reset, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(reset, reset)
	_ = framer.WriteSettings()
	go io.Copy(io.Discard, reset)
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":authority", "x"},
		{":path", "/probe.v1.Probe/Unary"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	for id := uint32(1); id < 200_000; id += 2 {
		if framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, BlockFragment: header.Bytes(), EndHeaders: true,
		}) != nil || framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // it was cut off
		}
	}
	good("rapid reset")

	neighbour := g.neighbour()
	for range 1000 { // most of which are over the limit
		g.dial()
	}
	good("idle connections")
	if neighbour != nil {
		if _, err := unary(t.Context(), neighbour, 0); err != nil {
			t.Errorf("a new connection from another address: %v", err)
		}
	}
}

// TestMaxCalls opens more calls than there may be.
func TestMaxCalls(t *testing.T) {
	server, backend := probe(t)
	g := gate(t, backend, "-max-calls", "4")
	conn := g.grpc()
	for i := range 3 { // what one address may have
		name := fmt.Sprint("call ", i)
		go probev1.NewProbeClient(conn).Unary(t.Context(),
			&probev1.UnaryRequest{Act: probev1.Act_ACT_HANG, Data: []byte(name)})
		server.WaitFor("hang begins: " + name)
	}
	for protocol, callers := range protocols {
		_, err := callers(g)["Unary"](t.Context(), load{})
		code, message, _ := outcome(err)
		if code != codes.ResourceExhausted || !strings.Contains(message, "too many calls") {
			t.Errorf("%s: %v, want ResourceExhausted", protocol, err)
		}
	}
	if neighbour := g.neighbour(); neighbour != nil {
		if _, err := unary(t.Context(), neighbour, 0); err != nil {
			t.Errorf("a call from another address: %v", err)
		}
	}
}

// TestManyCalls has one client's calls hang, more of them than share a connection to the backend or run on one.
func TestManyCalls(t *testing.T) {
	server, backend := probe(t, "-call-timeout", "20s")
	g := gate(t, backend, "-max-streams", "400")
	conn := g.grpc()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const many = 300
	for i := range many {
		go probev1.NewProbeClient(conn).Unary(ctx,
			&probev1.UnaryRequest{Act: probev1.Act_ACT_HANG, Data: fmt.Append(nil, "call ", i)})
	}
	for i := range many {
		server.WaitFor(fmt.Sprintf("hang begins: call %d\n", i))
	}
	if data, err := unary(t.Context(), conn, 0); err != nil || data != "data" {
		t.Errorf("another call: %q, %v", data, err)
	}
}

// TestWatchAgain has a server that ends calls after a while, those that watch its health included.
func TestWatchAgain(t *testing.T) {
	server, backend := probe(t, "-call-timeout", "300ms")
	conn := gate(t, backend).grpc()
	for strings.Count(server.Stderr(), "method=/grpc.health.v1.Health/Watch") < 6 { // there are two at a time
		if _, err := unary(t.Context(), conn, probev1.Act_ACT_HANG); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := healthv1.NewHealthClient(conn).Watch(ctx, new(healthv1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	for r := new(healthv1.HealthCheckResponse); r.GetStatus() != healthv1.HealthCheckResponse_SERVING; {
		if r, err = watch.Recv(); err != nil { // it may not be serving for a moment, on a slow machine
			t.Fatal(err)
		}
	}
}

// TestMetrics calls what is there and, with the backend and without it, what is not: callers cannot make up labels.
func TestMetrics(t *testing.T) {
	server, backend := probe(t)
	g := gate(t, backend, "-metrics", "127.0.0.1:0")
	conn := g.grpc()
	invent := func(name string) {
		t.Helper()
		err := conn.Invoke(t.Context(), "/invented/"+name, new(probev1.UnaryRequest), new(probev1.UnaryResponse))
		if err == nil {
			t.Errorf("%s was called", name)
		}
	}
	if _, err := unary(t.Context(), conn, 0); err != nil {
		t.Fatal(err)
	}
	invent("One")
	server.Signal(os.Interrupt)
	g.WaitFor("backend down")
	invent("Two")
	text := g.scrape()
	for _, want := range []string{
		`ttgate_calls_total{code="OK",method="/probe.v1.Probe/Unary"} 1`,
		`ttgate_calls_total{code="Unimplemented",method="unknown"} 1`,
		`ttgate_calls_total{code="Unavailable",method="unknown"} 1`, "ttgate_backend_up 0", "ttgate_calls_open 0",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(text, "invented") {
		t.Error("callers can make up labels")
	}
}

// TestLongStream sends more than may be queued, in small messages that are received.
func TestLongStream(t *testing.T) {
	_, backend := probe(t)
	g := gate(t, backend, "-max-message", "64KiB", "-max-memory", "128KiB")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := probev1.NewProbeClient(g.grpc()).Join(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const many = 50_000 // of 5 bytes and more on the wire, the least that a message takes
	for range many {
		if err := stream.Send(&probev1.JoinRequest{Data: []byte("x")}); err != nil {
			break // which the answer tells
		}
	}
	if r, err := stream.CloseAndRecv(); err != nil || len(r.GetData()) != many {
		t.Errorf("%d bytes came back, %v", len(r.GetData()), err)
	}
}
