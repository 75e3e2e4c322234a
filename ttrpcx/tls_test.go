package ttrpcx_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/testservice"
	"example.com/ttrpc-starter/ttrpcx"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes a certificate and its key. The certificate is for 127.0.0.1, for a server and a client, after edit.
func (a *authority) issue(name string, edit ...func(*x509.Certificate)) ttrpcx.TLSFiles {
	a.t.Helper()
	dir := a.t.TempDir()
	f := ttrpcx.TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: a.file}
	a.write(f, name, edit...)
	return f
}

func (a *authority) write(f ttrpcx.TLSFiles, name string, edit ...func(*x509.Certificate)) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, e := range edit {
		e(template)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, f.Cert, "CERTIFICATE", der)
	writePEM(a.t, f.Key, "PRIVATE KEY", keyDER)
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

// serveTLS serves with TLS on a free port.
func serveTLS(t *testing.T, files ttrpcx.TLSFiles, service ...testservice.Service) *served {
	t.Helper()
	return serve(t, ttrpcx.ServerOptions{Address: "tcp://127.0.0.1:0", TLS: files}, service...)
}

// client returns the options of a client with the files.
func (s *served) client(files ttrpcx.TLSFiles) ttrpcx.ClientOptions {
	o := s.options()
	o.TLS = files
	return o
}

func TestMutualTLS(t *testing.T) {
	noLeaks(t)
	peers := make(chan ttrpcx.Peer, 1)
	a := newAuthority(t)
	s := serveTLS(t, a.issue("server"), unary(func(ctx context.Context) error {
		p, _ := ttrpcx.PeerFromContext(ctx)
		peers <- p
		return nil
	}))
	client := mustDial(t, s.client(a.issue("client")))
	if err := callAll(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	p := <-peers
	if p.Certificate == nil || p.Certificate.Subject.CommonName != "client" || p.Credentials != nil {
		t.Errorf("the peer is %+v, want the client's certificate", p)
	}
	for _, want := range []string{"subject=CN=client", "address=127.0.0.1:"} {
		if text := p.LogValue().String(); !strings.Contains(text, want) {
			t.Errorf("the log shows %s, want %s in it", text, want)
		}
	}

	// Service identities have a URI and no subject: https://github.com/spiffe/spiffe, X.509-SVID.
	unnamed := a.issue("", func(c *x509.Certificate) {
		c.Subject = pkix.Name{}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "domain", Path: "/client"}}
	})
	if err := call(t.Context(), mustDial(t, s.client(unnamed))); err != nil {
		t.Fatal(err)
	}
	if text := (<-peers).LogValue().String(); !strings.Contains(text, "subject=spiffe://domain/client") {
		t.Errorf("the log shows %s", text)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if lines := s.log.lines(); len(lines) > 0 {
		t.Errorf("logged %q", lines)
	}
}

// TestTLSRefuses checks that the server and the client refuse a wrong certificate and say why.
func TestTLSRefuses(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	good := a.issue("client")
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	foreign := other.issue("client")
	foreign.CA = a.file
	for name, c := range map[string]struct {
		server, client ttrpcx.TLSFiles
		logged, want   string
	}{
		"client of another authority": {
			a.issue("server"), foreign,
			"unknown authority", "the server refused the connection: tls: unknown certificate authority",
		},
		"client's certificate expired": {
			a.issue("server"), a.issue("client", expired),
			"expired", "the server refused the connection: tls: expired certificate",
		},
		"client's certificate for servers": {
			a.issue("server"), a.issue("client", serverOnly),
			"incompatible key usage", "the server refused the connection: tls: bad certificate",
		},
		"server of another authority": {
			func() ttrpcx.TLSFiles { f := other.issue("server"); f.CA = a.file; return f }(), good,
			"bad certificate", "signed by unknown authority",
		},
		"server's certificate expired": {a.issue("server", expired), good, "bad certificate", "expired"},
		"server's certificate for clients": {
			a.issue("server", clientOnly), good, "bad certificate", "incompatible key usage",
		},
		"server of another name": {
			a.issue("server", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }), good,
			"bad certificate", "127.0.0.2, not 127.0.0.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			called := make(chan struct{}, 1)
			s := serveTLS(t, c.server, unary(func(context.Context) error { called <- struct{}{}; return nil }))
			client, err := dial(t, s.client(c.client))
			if err == nil {
				// In TLS 1.3 the client's handshake is over before the server has seen its certificate.
				err = call(t.Context(), client)
				if code := status.Code(err); code != codes.Unavailable {
					t.Errorf("the call's code is %v, want Unavailable", code)
				}
			} else {
				wantError(t, err, "connect to "+s.address)
			}
			wantError(t, err, c.want)
			s.log.wantOnly(t, "connection refused", "TLS handshake", c.logged, "peer.address=127.0.0.1:")
			select {
			case <-called:
				t.Error("the call reached its handler")
			default:
			}
			_ = s.stop()
		})
	}
}

// TestTLSMisunderstandings has peers that use another protocol than the server, which must serve others as before.
func TestTLSMisunderstandings(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	s := serveTLS(t, a.issue("server"))
	good := a.issue("client")
	pair := loadPair(t, good)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)

	for name, c := range map[string]struct {
		do     func(t *testing.T, conn net.Conn)
		logged string
	}{
		"plain ttrpc": {func(t *testing.T, conn net.Conn) {
			client := ttrpc.NewClient(conn)
			if err := call(t.Context(), client); !errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("the call's error is %v, want ErrClosed", err)
			}
		}, "first record does not look like a TLS handshake"},
		"TLS 1.2": {func(t *testing.T, conn net.Conn) {
			err := tls.Client(conn, &tls.Config{
				RootCAs: pool, ServerName: "127.0.0.1",
				Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12,
			}).Handshake()
			wantError(t, err, "protocol version")
		}, "unsupported versions"},
		"no certificate": {func(t *testing.T, conn net.Conn) {
			tlsConn := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			_, err := tlsConn.Read(make([]byte, 1))
			wantError(t, err, "certificate required")
		}, "client didn't provide a certificate"},
		"nothing": {func(_ *testing.T, conn net.Conn) { _ = conn.Close() }, "EOF"},
		"half of a ClientHello": {func(_ *testing.T, conn net.Conn) {
			_, _ = conn.Write([]byte{22, 3, 1, 1, 0})
			_ = conn.Close()
		}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s.log.clear()
			conn := rawDial(t, s.address)
			c.do(t, conn)
			_ = conn.Close()
			s.log.wantOnly(t, "connection refused", c.logged, "peer.address=127.0.0.1:")
			client := mustDial(t, s.client(good))
			if err := call(t.Context(), client); err != nil {
				t.Errorf("the server no longer serves: %v", err)
			}
			_ = client.Close()
		})
	}
	t.Run("plain call", func(t *testing.T) {
		s.log.clear()
		o := s.options()
		o.Insecure = true
		if err := call(t.Context(), mustDial(t, o)); status.Code(err) != codes.Unavailable {
			t.Errorf("the call's error is %v, want code Unavailable", err)
		}
		s.log.wantOnly(t, "connection refused", "first record does not look like a TLS handshake")
	})
	_ = s.stop()
}

// TestPlainTCP checks the warning, and the hint that a client gets if it uses TLS.
func TestPlainTCP(t *testing.T) {
	s := serve(t, ttrpcx.ServerOptions{Address: "tcp://127.0.0.1:0", Insecure: true})
	s.log.wantOnly(t, "level=WARN", "plain TCP", s.address)
	o := s.options()
	o.Insecure = true
	if err := callAll(t.Context(), mustDial(t, o)); err != nil {
		t.Error(err)
	}

	s.log.clear()
	_, err := dial(t, s.client(newAuthority(t).issue("client")))
	wantError(t, err, "connect to "+s.address, "does it use TLS?")
	s.log.wantOnly(t, "connection closed", "over the limit", "peer.address=127.0.0.1:")
}

// TestSlowHandshakes has peers that do not start a handshake. They must not delay others, and are disconnected in the
// end.
func TestSlowHandshakes(t *testing.T) {
	noLeaks(t)
	a := newAuthority(t)
	files := a.issue("client")
	t.Run("do not delay others", func(t *testing.T) {
		s := serveTLS(t, a.issue("server"))
		for range 20 {
			_ = rawDial(t, s.address)
		}
		if err := call(t.Context(), mustDial(t, s.client(files))); err != nil {
			t.Error(err)
		}
		if lines := s.log.lines(); len(lines) > 0 {
			t.Errorf("logged %q", lines)
		}
		if err := s.stop(); err != nil { // at once, because no call is open
			t.Errorf("Serve returns %v", err)
		}
		if lines := s.log.lines(); len(lines) > 0 {
			t.Errorf("the end of handshakes was logged: %q", lines)
		}
	})
	t.Run("are disconnected", func(t *testing.T) {
		s := serve(t, ttrpcx.ServerOptions{
			Address: "tcp://127.0.0.1:0", TLS: a.issue("server"), IOTimeout: 20 * time.Millisecond,
		})
		wantHangUp(t, rawDial(t, s.address))
		s.log.wantOnly(t, "connection refused", "TLS handshake not finished within 20ms")
		_ = s.stop()
	})
}

// serverName connects and returns the name in the server's certificate.
func serverName(t *testing.T, s *served, files ttrpcx.TLSFiles) string {
	t.Helper()
	conn := tls.Client(rawDial(t, s.address), unverified(t, files))
	defer conn.Close()
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestCertificatesAreReloaded(t *testing.T) {
	a := newAuthority(t)
	files, clientFiles := a.issue("first"), a.issue("client")
	s := serveTLS(t, files)
	old := mustDial(t, s.client(clientFiles))
	if err := call(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	want := func(name string, lines ...string) {
		t.Helper()
		for range 3 {
			if got := serverName(t, s, clientFiles); got != name {
				t.Errorf("the server is %q, want %q", got, name)
			}
		}
		if len(lines) > 0 {
			s.log.wantOnly(t, lines...)
		}
		s.log.clear()
		if err := call(t.Context(), old); err != nil {
			t.Errorf("the connection from before: %v", err)
		}
	}
	want("first")

	a.write(files, "the second")
	want("the second", "TLS files reloaded")

	half, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files.Cert, half[:len(half)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	want("the second", "level=ERROR", "cannot be used", files.Cert)

	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	want("the second", "level=ERROR", "cannot be used", files.Key)

	a.write(files, "third")
	want("third", "TLS files reloaded")

	// After the authority was replaced, new connections with its certificates are refused.
	other := newAuthority(t)
	pem, err := os.ReadFile(other.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, append(pem, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(rawDial(t, s.address), unverified(t, clientFiles))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a client of the old authority gets %v", err)
	}
	if err := call(t.Context(), old); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

// TestAuthorityIsWithdrawn takes an authority away while the key cannot be read. Its certificates are refused at once.
func TestAuthorityIsWithdrawn(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	files, clientFiles := a.issue("server"), a.issue("client")
	s := serveTLS(t, files)
	connect := func() error {
		conn := tls.Client(rawDial(t, s.address), unverified(t, clientFiles))
		if err := conn.Handshake(); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 1)) // the refusal comes after the client's handshake
		return err
	}
	for _, name := range []string{files.Key, files.Cert} {
		if err := os.WriteFile(name, []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pem, err := os.ReadFile(other.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, append(pem, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, connect(), "unknown certificate authority")
	if len(s.log.lines("level=ERROR", "cannot be used", files.Key)) != 1 || len(s.log.lines("reloaded")) != 1 {
		t.Errorf("logged %q, want that the key cannot be used and that the authorities were reloaded", s.log.lines())
	}
}

// unverified returns the configuration of a client that accepts any server.
func unverified(t *testing.T, files ttrpcx.TLSFiles) *tls.Config {
	t.Helper()
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{loadPair(t, files)}}
}

func loadPair(t *testing.T, files ttrpcx.TLSFiles) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestUnusableFiles checks that the errors of Listen and Dial name the file.
func TestUnusableFiles(t *testing.T) {
	a := newAuthority(t)
	good := a.issue("either")
	s := serveTLS(t, good)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, edit := range map[string]func(*ttrpcx.TLSFiles) string{
		"no certificate":     func(f *ttrpcx.TLSFiles) string { f.Cert = missing; return missing },
		"no key":             func(f *ttrpcx.TLSFiles) string { f.Key = missing; return missing },
		"no authority":       func(f *ttrpcx.TLSFiles) string { f.CA = missing; return missing },
		"empty certificate":  func(f *ttrpcx.TLSFiles) string { f.Cert = empty; return empty },
		"empty authority":    func(f *ttrpcx.TLSFiles) string { f.CA = empty; return empty },
		"another's key":      func(f *ttrpcx.TLSFiles) string { f.Key = a.issue("x").Key; return "does not match" },
		"key is certificate": func(f *ttrpcx.TLSFiles) string { f.Key = f.Cert; return f.Cert },
	} {
		t.Run(name, func(t *testing.T) {
			files := good
			want := edit(&files)
			_, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: "tcp://127.0.0.1:0", TLS: files})
			wantError(t, err, want)
			_, err = dial(t, s.client(files))
			wantError(t, err, want)
		})
	}
}

// TestServerConfig has servers of another protocol, one of which lets clients without a certificate in.
func TestServerConfig(t *testing.T) {
	a := newAuthority(t)
	files := a.issue("first")
	dial := func(f ttrpcx.TLSFiles, client *tls.Config) (state tls.ConnectionState, err error) {
		t.Helper()
		config, err := f.ServerConfig(slog.New(slog.DiscardHandler), "h2", "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		a.write(files, "second")
		here, there := net.Pipe()
		defer here.Close()
		go func() {
			defer there.Close()
			_, _ = tls.Server(there, config).Write([]byte{1})
		}()
		conn := tls.Client(here, client)
		_, err = conn.Read(make([]byte, 1))
		return conn.ConnectionState(), err
	}
	known := unverified(t, a.issue("client"))
	known.NextProtos = []string{"http/1.1"}
	stranger := known.Clone()
	stranger.Certificates = nil

	open := ttrpcx.TLSFiles{Cert: files.Cert, Key: files.Key}
	for _, f := range []ttrpcx.TLSFiles{files, open} {
		state, err := dial(f, known)
		if err != nil || state.NegotiatedProtocol != "http/1.1" ||
			state.PeerCertificates[0].Subject.CommonName != "second" {
			t.Errorf("a client with a certificate: %v, %+v", err, state)
		}
	}
	if _, err := dial(files, stranger); err == nil {
		t.Error("a client without a certificate got in")
	}
	if _, err := dial(open, stranger); err != nil {
		t.Errorf("a client without a certificate: %v", err)
	}
	if _, err := (ttrpcx.TLSFiles{Cert: "nowhere"}).ServerConfig(nil); err == nil {
		t.Error("a certificate that is not there was read")
	}
}
