package ttrpcx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// load reads the files and returns a configuration for a server or a client. With it, the peer needs a certificate that
// one of the authorities has issued and that is valid now.
func (f TLSFiles) load() (*tls.Config, error) {
	cert, err := f.loadPair()
	if err != nil {
		return nil, err
	}
	pool, err := f.loadCA()
	if err != nil {
		return nil, err
	}
	return newConfig(cert, pool), nil
}

func (f TLSFiles) loadPair() (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return cert, fmt.Errorf("load certificate %s and key %s: %w", f.Cert, f.Key, err)
	}
	return cert, nil
}

func (f TLSFiles) loadCA() (*x509.CertPool, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("load certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authorities %s: the file has no certificate", f.CA)
	}
	return pool, nil
}

func newConfig(cert tls.Certificate, pool *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// A resumed session would still be accepted after the authority was removed from the file.
		SessionTicketsDisabled: true,
	}
}

// closeTLS closes c within lastAnswersTimeout. By itself, Close waits for a lock that a reader holds while it answers a
// KeyUpdate, and for that as long as the peer likes.
func closeTLS(c *tls.Conn) error {
	late := time.AfterFunc(lastAnswersTimeout, func() { _ = c.NetConn().Close() })
	defer late.Stop()
	return c.Close()
}

// watched is what was loaded from files, together with their state at that time.
type watched[T any] struct {
	load  func() (T, error)
	files []string
	stamp string
	value T
}

// reload loads the value again if the files have changed. If that fails, the value stays until they change again.
func (w *watched[T]) reload() (changed bool, err error) {
	stamp := ""
	for _, name := range w.files {
		info, statErr := os.Stat(name)
		if statErr != nil {
			err = errors.Join(err, statErr)
			stamp += fmt.Sprintln(statErr)
			continue
		}
		stamp += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
	}
	if stamp == w.stamp {
		return false, nil
	}
	w.stamp = stamp
	if err != nil {
		return false, err
	}
	value, err := w.load()
	if err != nil {
		return false, err
	}
	w.value = value
	return true, nil
}

// reloader is a server's TLS configuration. Each handshake uses the files as they are at that time. Files are replaced
// one after another, so for a moment certificate and key may not fit together. That does not keep an authority that was
// removed: its file is loaded apart from them.
type reloader struct {
	log *slog.Logger

	mu     sync.Mutex
	pair   watched[tls.Certificate]
	ca     watched[*x509.CertPool]
	config *tls.Config
}

func newReloader(f TLSFiles, log *slog.Logger) (*reloader, error) {
	r := &reloader{
		log:  log,
		pair: watched[tls.Certificate]{load: f.loadPair, files: []string{f.Cert, f.Key}},
		ca:   watched[*x509.CertPool]{load: f.loadCA, files: []string{f.CA}},
	}
	if _, err := r.reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// reload loads what has changed. mu is held, or r is new.
func (r *reloader) reload() (changed bool, err error) {
	pair, pairErr := r.pair.reload()
	ca, caErr := r.ca.reload()
	if pair || ca {
		r.config = newConfig(r.pair.value, r.ca.value)
	}
	return pair || ca, errors.Join(pairErr, caErr)
}

// server returns the configuration for tls.Server.
func (r *reloader) server() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}
}

// current returns the newest configuration that could be loaded.
func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed, err := r.reload()
	if err != nil {
		r.log.Error("changed TLS files cannot be used; the server goes on with the old ones", "error", err)
	}
	if changed {
		r.log.Info("TLS files reloaded")
	}
	return r.config
}
