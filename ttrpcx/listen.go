package ttrpcx

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Listener is where a server listens, together with whom it serves and within which limits.
type Listener struct {
	listener net.Listener
	options  ServerOptions
	tls      *reloader // nil without TLS
}

// Listen starts to listen. A refused option is an error as Validate's; any other error names the address.
func Listen(ctx context.Context, options ServerOptions) (*Listener, error) {
	if err := options.Validate(); err != nil {
		return nil, err
	}
	options = options.WithDefaults()
	address, err := ParseAddress(options.Address)
	if err != nil {
		return nil, err
	}
	l := &Listener{options: options}
	if (options.TLS != TLSFiles{}) {
		if l.tls, err = newReloader(options.TLS, options.Logger); err != nil {
			return nil, err
		}
	}
	if l.listener, err = listen(ctx, address, options); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", address, cause(err))
	}
	if err := l.check(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen at %s: %w", address, err)
	}
	l.warn()
	return l, nil
}

func listen(ctx context.Context, address Address, options ServerOptions) (net.Listener, error) {
	switch address.scheme {
	case schemeUnix:
		return listenUnix(ctx, address.rest, options.Allow.wide())
	case schemeSystemd:
		return activated(address.rest)
	default:
		return new(net.ListenConfig).Listen(ctx, "tcp", address.rest)
	}
}

// check refuses what Validate could not know: what kind of socket systemd passes.
func (l *Listener) check() error {
	secure := l.tls != nil
	switch network := l.listener.Addr().Network(); {
	case network == "tcp" && !secure && !l.options.Insecure:
		return optionErrorf("this is TCP: it needs %s, %s and %s (or %s, on a network that you trust)",
			optionCert, optionKey, optionCA, optionInsecure)
	case network == "unix" && (secure || l.options.Insecure):
		return optionErrorf("this is a unix socket: %s, %s, %s and %s are for TCP", optionCert, optionKey, optionCA, optionInsecure)
	case network != "tcp" && network != "unix":
		return fmt.Errorf("this is a %s socket: want a stream (ListenStream= in systemd.socket(5))", network)
	}
	return nil
}

// warn says what a listener that looks safe lacks.
func (l *Listener) warn() {
	unix, ours := l.listener.(*unixListener)
	switch {
	case l.options.Insecure:
		l.options.Logger.Warn("plain TCP: anyone who reaches the port may call, and read and change what others call",
			"address", l.String())
	case l.tls == nil && runtime.GOOS != "linux" && runtime.GOOS != "darwin":
		l.options.Logger.Warn("callers are not checked: " + errCannotTell.Error() +
			"; the permissions of the socket's directory are all that guards it")
	case ours && l.options.Allow.wide():
		dir := filepath.Dir(unix.path)
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o011 == 0 {
			l.options.Logger.Warn("the socket's directory lets in none of the users and groups that are allowed besides: chmod it 711",
				"directory", dir)
		}
	}
}

// String returns the address in the form that a client dials, with the port that was taken if any was asked for.
func (l *Listener) String() string {
	addr := l.listener.Addr()
	if addr.Network() == "tcp" {
		return Address{schemeTCP, addr.String()}.String()
	}
	if name, ok := strings.CutPrefix(addr.String(), "@"); ok {
		return Address{schemeAbstract, name}.String()
	}
	return Address{schemeUnix, addr.String()}.String()
}

// Addr returns the address in package net's form, which tells what kind of socket systemd has passed.
func (l *Listener) Addr() net.Addr { return l.listener.Addr() }

// Close stops listening. A unix socket that Listen made is removed. Serve does both.
func (l *Listener) Close() error { return l.listener.Close() }
