package ttrpcx

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// load reads the files and returns a configuration for a server or a client. With it, the peer needs a certificate that
// one of the authorities has issued and that is valid now.
func (f TLSFiles) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s and key %s: %w", f.Cert, f.Key, err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("load certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load certificate authorities %s: the file has no certificate", f.CA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// A resumed session would still be accepted after the authority was removed from the file.
		SessionTicketsDisabled: true,
	}, nil
}

// stamp returns a text that changes when one of the files changes.
func (f TLSFiles) stamp() (stamp string, err error) {
	for _, name := range []string{f.Cert, f.Key, f.CA} {
		info, statErr := os.Stat(name)
		if statErr != nil {
			err = errors.Join(err, statErr)
			continue
		}
		stamp += fmt.Sprintln(info.ModTime().UnixNano(), info.Size())
	}
	return stamp, err
}

// reloader is a server's TLS configuration. Each handshake uses the files as they are at that time.
type reloader struct {
	files TLSFiles
	log   *slog.Logger

	mu     sync.Mutex
	stamp  string
	config *tls.Config
}

func newReloader(files TLSFiles, log *slog.Logger) (*reloader, error) {
	r := &reloader{files: files, log: log}
	var err error
	if r.stamp, err = files.stamp(); err != nil {
		return nil, err
	}
	if r.config, err = files.load(); err != nil {
		return nil, err
	}
	return r, nil
}

// server returns the configuration for tls.Server.
func (r *reloader) server() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}
}

// current returns the newest configuration that could be loaded. Files are replaced one after another, so for a moment
// they may not fit together. They are loaded again when they change again.
func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp, err := r.files.stamp()
	if stamp == r.stamp {
		return r.config
	}
	r.stamp = stamp
	var config *tls.Config
	if err == nil {
		config, err = r.files.load()
	}
	if err != nil {
		r.log.Error("changed TLS files cannot be used; the server goes on with the old ones", "error", err)
		return r.config
	}
	r.log.Info("TLS files reloaded")
	r.config = config
	return config
}
