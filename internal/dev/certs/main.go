// Certs writes certificates to try TLS with: an authority's, a server's for this machine and a client's.
//
// Usage: certs DIR, which must not exist yet.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is short, because certificates with keys in a working directory are only to try things.
const lifetime = 90 * 24 * time.Hour

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "certs: want the directory to make as the argument")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
	fmt.Printf(`%[1]s has certificates for %[2]d days. Try them:
  bin/server -address tcp://localhost:4433 -tls-cert %[1]s/server.pem -tls-key %[1]s/server-key.pem -tls-ca %[1]s/ca.pem
  bin/client -address tcp://localhost:4433 -tls-cert %[1]s/client.pem -tls-key %[1]s/client-key.pem -tls-ca %[1]s/ca.pem
`, filepath.ToSlash(os.Args[1]), lifetime/(24*time.Hour))
}

// run makes dir complete or not at all.
func run(dir string) (err error) {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s is there already: remove it to get new certificates", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "certs-") // mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(scratch)
		}
	}()

	// The authority's key is kept nowhere, so that nothing more can be issued in its name.
	authority := template("ttrpc-starter trial authority")
	authority.IsCA, authority.BasicConstraintsValid, authority.MaxPathLenZero = true, true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	key, err := newKey()
	if err != nil {
		return err
	}
	if err := issue(filepath.Join(scratch, "ca.pem"), authority, authority, key, key); err != nil {
		return err
	}

	server := template("server")
	server.DNSNames = []string{"localhost"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	client := template("client")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, c := range []*x509.Certificate{server, client} {
		if err := issueWithKey(scratch, c, authority, key); err != nil {
			return err
		}
	}
	return os.Rename(scratch, dir)
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{ // x509 chooses the serial number
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Minute), // for clocks that are a little behind
		NotAfter:  now.Add(lifetime),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// issueWithKey writes NAME.pem and NAME-key.pem.
func issueWithKey(dir string, c, authority *x509.Certificate, authorityKey *ecdsa.PrivateKey) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, c.Subject.CommonName)
	return errors.Join(
		issue(name+".pem", c, authority, key, authorityKey),
		write(name+"-key.pem", "PRIVATE KEY", der, 0o600),
	)
}

func issue(file string, c, authority *x509.Certificate, key, authorityKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, c, authority, key.Public(), authorityKey)
	if err != nil {
		return err
	}
	return write(file, "CERTIFICATE", der, 0o644)
}

func write(file, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
