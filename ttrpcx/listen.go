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

// Listener is a socket on which a server listens, together with the limits and the allowed peers that Serve applies to
// it.
type Listener struct {
	listener net.Listener
	options  ServerOptions
	tls      *reloader // nil without TLS
}

// Listen starts to listen at options.Address. If it refuses an option, the error is one that ServerOptions.Validate
// returns, or has an *OptionError inside. Any other error names the address.
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
		return listenUnix(ctx, address.rest, options.Allow.addsPeers())
	case schemeSystemd:
		return systemdListener(address.rest)
	case schemeVsock:
		addr, err := parseVsock(address.rest)
		if err != nil {
			return nil, err
		}
		return listenVsock(addr)
	default:
		return new(net.ListenConfig).Listen(ctx, "tcp", address.rest)
	}
}

// check refuses options that do not fit the kind of socket. Validate cannot do that, because it does not know which
// kind systemd passes.
func (l *Listener) check() error {
	secure := l.tls != nil
	switch network := l.listener.Addr().Network(); {
	case network == "tcp" && !secure && !l.options.Insecure:
		return optionErrorf("this is TCP: it needs %s, %s and %s (or %s, on a network that you trust)",
			optionCert, optionKey, optionCA, optionInsecure)
	case network != "tcp" && (secure || l.options.Insecure):
		return optionErrorf("this is a %s socket: %s, %s, %s and %s are for TCP",
			network, optionCert, optionKey, optionCA, optionInsecure)
	case network != "tcp" && network != "unix" && network != "vsock":
		return fmt.Errorf("this is a %s socket: want a stream (ListenStream= in systemd.socket(5))", network)
	}
	return nil
}

// warn logs what the listener does not protect against, or why its users cannot connect.
func (l *Listener) warn() {
	unix, ours := l.listener.(*unixListener)
	switch {
	case l.options.Insecure:
		l.options.Logger.Warn("plain TCP: anybody on the network can make calls, and read and change other calls",
			"address", l.String())
	case l.tls == nil && runtime.GOOS != "linux" && runtime.GOOS != "darwin":
		l.options.Logger.Warn("callers are not checked: " + errCannotTell.Error() +
			"; only the permissions of the socket's directory protect it")
	case ours && l.options.Allow.addsPeers():
		dir := filepath.Dir(unix.path)
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o011 == 0 {
			l.options.Logger.Warn("other users are allowed, but the socket's directory keeps them out: chmod it 711",
				"directory", dir)
		}
	}
}

// String returns the address in the form that a client dials. If the port was 0, it is the port that the system chose.
func (l *Listener) String() string {
	addr := l.listener.Addr()
	if network := addr.Network(); network != "unix" {
		return Address{scheme(network), addr.String()}.String()
	}
	if name, ok := strings.CutPrefix(addr.String(), "@"); ok {
		return Address{schemeAbstract, name}.String()
	}
	return Address{schemeUnix, addr.String()}.String()
}

// Addr returns the address in package net's form. Its network is the kind of the socket, also if systemd has passed it.
func (l *Listener) Addr() net.Addr { return l.listener.Addr() }

// Close stops listening, and removes a unix socket that Listen made. Serve calls it.
func (l *Listener) Close() error { return l.listener.Close() }
