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

// load reads the files anew. What it returns fits either side: the other side's certificate must be valid, now, for one
// of its certificate authorities.
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
		return nil, fmt.Errorf("load certificate authorities %s: no certificate in it", f.CA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// A resumed session would outlive the authority's withdrawal.
		SessionTicketsDisabled: true,
	}, nil
}

// stamp changes when one of the files does.
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

// reloader is a server's TLS configuration, which follows its files: each handshake takes what they hold by then.
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

// server returns the configuration to give to tls.Server.
func (r *reloader) server() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}
}

// current returns the newest configuration that could be loaded. Files are replaced one after another, so a set that
// does not fit together yet is normal and is tried again when it changes.
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
		r.log.Error("changed TLS files cannot be used; those read before stay in use", "error", err)
		return r.config
	}
	r.log.Info("TLS files read anew")
	r.config = config
	return config
}
