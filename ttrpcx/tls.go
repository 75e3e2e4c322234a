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

// ServerConfig returns a configuration for a TLS server of another protocol than ttrpc, with the names that it has in
// ALPN (RFC 7301). Files that have changed are read again for the next handshake, and log is told. Without CA, clients
// need no certificate.
func (f TLSFiles) ServerConfig(log *slog.Logger, alpn ...string) (*tls.Config, error) {
	r, err := newReloader(f, log)
	if err != nil {
		return nil, err
	}
	config := r.server()
	config.NextProtos = alpn
	current := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := current(hello)
		if err == nil {
			c = c.Clone()
			c.NextProtos = alpn
		}
		return c, err
	}
	return config, nil
}

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

// reloader is a server's TLS configuration. Each handshake uses the files as they are at that time. Files are replaced
// one after another, so for a moment certificate and key may not fit together. An authority that was removed is out
// nevertheless, because its file is loaded apart from them.
type reloader struct {
	log *slog.Logger

	mu     sync.Mutex
	parts  []reloaded
	config *tls.Config
}

// reloaded are files that only fit together, with their state when they were loaded.
type reloaded struct {
	files []string
	stamp string
	load  func() error
}

func newReloader(f TLSFiles, log *slog.Logger) (*reloader, error) {
	r := &reloader{log: log, config: newConfig(tls.Certificate{}, nil)}
	r.parts = []reloaded{
		{files: []string{f.Cert, f.Key}, load: func() error {
			cert, err := f.loadPair()
			if err == nil {
				r.config = newConfig(cert, r.config.ClientCAs)
			}
			if f.CA == "" {
				r.config.ClientAuth = tls.NoClientCert
			}
			return err
		}},
	}
	if f.CA != "" {
		r.parts = append(r.parts, reloaded{files: []string{f.CA}, load: func() error {
			pool, err := f.loadCA()
			if err == nil {
				r.config = newConfig(r.config.Certificates[0], pool)
			}
			return err
		}})
	}
	_, err := r.reload()
	return r, err
}

// reload loads what has changed since it was loaded. If that fails, it stays as it was until it changes again. mu is
// held, or r is new.
func (r *reloader) reload() (changed bool, failed error) {
	for i := range r.parts {
		p := &r.parts[i]
		stamp, err := stampOf(p.files)
		if stamp == p.stamp {
			continue
		}
		p.stamp = stamp
		if err == nil {
			err = p.load()
		}
		changed, failed = changed || err == nil, errors.Join(failed, err)
	}
	return changed, failed
}

// stampOf returns a text that changes when one of the files changes.
func stampOf(files []string) (stamp string, err error) {
	for _, name := range files {
		info, statErr := os.Stat(name)
		if statErr != nil {
			err = errors.Join(err, statErr)
			stamp += statErr.Error()
			continue
		}
		stamp += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
	}
	return stamp, err
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
