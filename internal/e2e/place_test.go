//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/ttrpcx"
)

// place is where a server listens, and how its users connect. User 0 is the one that keeps the rules.
type place struct {
	name    string
	address string
	flags   []string             // of the server
	options ttrpcx.ClientOptions // of user 0

	// dial connects as a user. knock connects without that user's permission, if the server asks for any.
	dial, knock func(user int) (net.Conn, error)

	// fair tells that the server can tell the users apart.
	fair bool
}

// dialUsers is how many users may call the server.
const dialUsers = 8

// unixPlace has a user id for each user, if the test runs as root.
func unixPlace(t testing.TB) *place {
	t.Helper()
	address := proctest.Socket(t)
	path := strings.TrimPrefix(address, "unix://")
	p := &place{
		name: "unix", address: address, options: ttrpcx.ClientOptions{Address: address}, fair: os.Geteuid() == 0,
	}
	connect := func() (net.Conn, error) { return net.Dial("unix", path) }
	p.dial = func(int) (net.Conn, error) { return connect() }
	p.knock = p.dial
	if !p.fair {
		return p
	}
	if err := os.Chmod(filepath.Dir(path), 0o711); err != nil {
		t.Fatal(err)
	}
	const first, stranger = 10000, 20000
	for user := range dialUsers {
		p.flags = append(p.flags, "-allow-uid", strconv.Itoa(first+user))
	}
	p.dial = func(user int) (net.Conn, error) {
		if user == 0 {
			return connect()
		}
		return asUser(first+user, connect)
	}
	p.knock = func(user int) (net.Conn, error) { return asUser(stranger+user, connect) }
	return p
}

// asUser connects with another effective user id. On Linux, each thread has its own.
func asUser(uid int, connect func() (net.Conn, error)) (net.Conn, error) {
	runtime.LockOSThread()
	const unchanged = ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return nil, errno
	}
	conn, err := connect()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, 0, unchanged); errno != 0 {
		return nil, errno // the thread stays locked, so it ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// tcpPlace has a network for each user.
func tcpPlace(t testing.TB) *place {
	t.Helper()
	address := reservePort(t)
	p := &place{name: "tcp", address: "tcp://" + address, flags: []string{"-insecure"}, fair: true}
	p.options = ttrpcx.ClientOptions{Address: p.address, Insecure: true}
	p.dial = func(user int) (net.Conn, error) {
		dialer := net.Dialer{
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(user), 1)},
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { // else a port could be used for one connection only
					const bindAddressNoPort = 24
					_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
				})
			},
		}
		return dialer.Dial("tcp", address)
	}
	p.knock = p.dial
	return p
}

// reservePort returns an address of this machine whose port nobody else gets until the test ends. A server can listen
// there, because it sets SO_REUSEADDR, too.
func reservePort(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", bound.(*syscall.SockaddrInet4).Port)
}

// tlsPlace has a network and a certificate for each user.
func tlsPlace(t testing.TB) *place {
	t.Helper()
	p := tcpPlace(t)
	p.name, p.options.Insecure, p.knock = "tls", false, p.dial
	a := newAuthority(t)
	server := a.issue(t, "server")
	p.flags = []string{"-tls-cert", server.Cert, "-tls-key", server.Key, "-tls-ca", server.CA}
	p.options.TLS = a.issue(t, "user 0")
	var configs [dialUsers]*tls.Config
	for user := range configs {
		files := a.issue(t, fmt.Sprint("user ", user))
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		configs[user] = &tls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: a.pool,
			ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
		}
	}
	p.dial = func(user int) (net.Conn, error) {
		conn, err := p.knock(user)
		if err != nil {
			return nil, err
		}
		tlsConn := tls.Client(conn, configs[user])
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return tlsConn, nil
	}
	return p
}

// authority issues certificates that are valid for an hour.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	files := a.issue(t, "authority")
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert.Leaf, cert.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

// issue writes a certificate with that subject and its key. The authority's own is the first.
func (a *authority) issue(t testing.TB, subject string) ttrpcx.TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		Subject:   pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
		parent, signer = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(a.dir, subject)
	for file, block := range map[string]*pem.Block{
		name + ".pem":     {Type: "CERTIFICATE", Bytes: der},
		name + "-key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ttrpcx.TLSFiles{Cert: name + ".pem", Key: name + "-key.pem", CA: filepath.Join(a.dir, "authority.pem")}
}
