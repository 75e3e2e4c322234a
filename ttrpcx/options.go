package ttrpcx

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/containerd/ttrpc"
)

// TLSFiles names the PEM files of one side of mutual TLS. All three are needed.
type TLSFiles struct {
	Cert string // this side's certificate, with the intermediate ones after it
	Key  string // the certificate's private key
	CA   string // the certificates that the other side's must go back to
}

// ServerOptions say where and for whom a server listens, and within which limits. Zero means the default.
type ServerOptions struct {
	// Address is in a form that ParseAddress takes. Default: DefaultAddress().
	Address string

	// Allow adds to who may connect to a unix socket: root and the server's own user.
	Allow Allow

	// TLS is for TCP, where either all its files or Insecure must be given.
	TLS TLSFiles

	// Insecure turns TLS off: whoever reaches the port may call, and read and change what others call.
	Insecure bool

	// MaxCalls is how many calls of one connection run at once; further ones wait. Default 256.
	MaxCalls int

	// MaxConnections bounds the connections in all; further ones are closed. Default 16384.
	MaxConnections int

	// MaxUserConnections bounds the connections of one user: a uid, a certificate's subject, or for plain TCP a host.
	// Until its handshake is over, a TLS connection is its host's. Default three quarters of MaxConnections, so that one
	// user leaves room for others.
	MaxUserConnections int

	// IOTimeout is how long a peer may leave a frame unfinished or not read what is written to it, and how long a TLS
	// handshake may take. An idle connection may stay. Default 30 s.
	IOTimeout time.Duration

	// ShutdownTimeout is how long open calls may go on once the server is told to stop. Default 10 s.
	ShutdownTimeout time.Duration

	// Services describes services that the server has or may have and that are in no .proto file which is linked in: a
	// peer that streams to a method of any other is refused. Default: none.
	Services map[string]*ttrpc.ServiceDesc

	// Logger is told of refused peers and other events of single connections. Default: slog.Default().
	Logger *slog.Logger
}

// RegisterFlags sets the options to their defaults and adds their flags.
func (o *ServerOptions) RegisterFlags(flags *flag.FlagSet) {
	*o = o.withDefaults()
	o.MaxUserConnections = 0 // follows -max-connections
	flags.StringVar(&o.Address, "address", o.Address,
		"`address` to listen at: unix:PATH, a path, tcp://HOST:PORT, or systemd: for the socket that systemd passes")
	registerAllow(flags, &o.Allow, "may connect")
	registerTLS(flags, &o.TLS, &o.Insecure)
	flags.Var((*positiveInt)(&o.MaxCalls), "max-calls", "`number` of calls of one connection that run at once")
	flags.Var((*positiveInt)(&o.MaxConnections), "max-connections", "`number` of connections in all")
	flags.Var((*positiveInt)(&o.MaxUserConnections), "max-user-connections", "`number` of connections of one user (default three quarters of -max-connections)")
	flags.Var((*positiveDuration)(&o.IOTimeout), "io-timeout", "`duration` that a peer may leave a frame unfinished or unread")
	flags.Var((*positiveDuration)(&o.ShutdownTimeout), "shutdown-timeout", "`duration` that open calls may go on after SIGTERM")
}

func (o ServerOptions) withDefaults() ServerOptions {
	setDefault(&o.Address, DefaultAddress())
	setDefault(&o.MaxCalls, 256)
	setDefault(&o.MaxConnections, 16384)
	setDefault(&o.MaxUserConnections, max(1, o.MaxConnections*3/4))
	setDefault(&o.IOTimeout, 30*time.Second)
	setDefault(&o.ShutdownTimeout, 10*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Validate reports what is wrong with the options as they were given, before anything is opened.
func (o ServerOptions) Validate() error {
	a, err := ParseAddress(o.withDefaults().Address)
	if err != nil {
		return err
	}
	if a.scheme == schemeAbstract {
		return fmt.Errorf("address %q: a server does not listen there, because any user could before it does: use unix:PATH", a)
	}
	return errors.Join(validateTLS(a, o.TLS, o.Insecure), validateAllow(a, o.Allow))
}

// ClientOptions say where a client connects and to whom. Zero means the default.
type ClientOptions struct {
	// Address is in a form that ParseAddress takes. Default: DefaultAddress().
	Address string

	// Allow adds to who may serve a unix socket: root and the client's own user.
	Allow Allow

	// TLS is for TCP, where either all its files or Insecure must be given. The files are read for each connection.
	TLS TLSFiles

	// Insecure turns TLS off: anyone on the way may read and change what is sent.
	Insecure bool

	// IOTimeout is how long the server may leave unread what is written to it. Default 30 s.
	IOTimeout time.Duration

	// Logger is told when a connection is lost and made again. Default: slog.Default().
	Logger *slog.Logger
}

// RegisterFlags sets the options to their defaults and adds their flags.
func (o *ClientOptions) RegisterFlags(flags *flag.FlagSet) {
	setDefault(&o.Address, DefaultAddress())
	flags.StringVar(&o.Address, "address", o.Address,
		"`address` to connect to: unix:PATH, a path, unix-abstract:NAME or tcp://HOST:PORT")
	registerAllow(flags, &o.Allow, "may be the server's")
	registerTLS(flags, &o.TLS, &o.Insecure)
}

// Validate reports what is wrong with the options as they were given, before anything is opened.
func (o ClientOptions) Validate() error {
	setDefault(&o.Address, DefaultAddress())
	a, err := ParseAddress(o.Address)
	if err != nil {
		return err
	}
	if _, _, err := a.dialable(); err != nil {
		return fmt.Errorf("address %q: %w", a, err)
	}
	return errors.Join(validateTLS(a, o.TLS, o.Insecure), validateAllow(a, o.Allow))
}

func registerAllow(flags *flag.FlagSet, a *Allow, what string) {
	flags.Var(idFlag{&a.UIDs, lookupUser}, "allow-uid", "`user` (name or number) that "+what+", besides root and your own; repeatable")
	flags.Var(idFlag{&a.GIDs, lookupGroup}, "allow-gid", "`group` (name or number) whose members' processes "+what+"; repeatable")
}

func registerTLS(flags *flag.FlagSet, files *TLSFiles, insecure *bool) {
	flags.StringVar(&files.Cert, "tls-cert", "", "PEM `file` with this side's certificate, for tcp://")
	flags.StringVar(&files.Key, "tls-key", "", "PEM `file` with the certificate's private key")
	flags.StringVar(&files.CA, "tls-ca", "", "PEM `file` with the certificates that the other side's must go back to")
	flags.BoolVar(insecure, "insecure", false, "allow tcp:// without TLS: anyone can read and change it")
}

func validateAllow(a Address, allow Allow) error {
	if a.scheme == schemeTCP && allow.wide() {
		return fmt.Errorf("address %q: -allow-uid and -allow-gid are for unix sockets; over TCP, -tls-ca says who is allowed", a)
	}
	return nil
}

func validateTLS(a Address, files TLSFiles, insecure bool) error {
	all := files.Cert != "" && files.Key != "" && files.CA != ""
	some := files != TLSFiles{}
	switch {
	case some && insecure:
		return errors.New("-insecure turns off the TLS that -tls-cert, -tls-key and -tls-ca ask for: give one or the other")
	case some && !all:
		return errors.New("TLS is mutual here: -tls-cert, -tls-key and -tls-ca must be given together")
	case a.scheme == schemeTCP && !all && !insecure:
		return fmt.Errorf("address %q: TCP needs -tls-cert, -tls-key and -tls-ca (or -insecure, on a network that you trust)", a)
	case (some || insecure) && (a.scheme == schemeUnix || a.scheme == schemeAbstract):
		return fmt.Errorf("address %q: TLS flags are for TCP; a unix socket is protected by its owner and mode", a)
	}
	return nil
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

// positiveInt is a flag that takes whole numbers above zero.
type positiveInt int

func (n *positiveInt) String() string { return strconv.Itoa(int(*n)) }

func (n *positiveInt) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v <= 0 {
		return errors.New("want a whole number above zero")
	}
	*n = positiveInt(v)
	return nil
}

// positiveDuration is a flag that takes durations above zero.
type positiveDuration time.Duration

func (d *positiveDuration) String() string { return time.Duration(*d).String() }

func (d *positiveDuration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("want a duration above zero, such as 30s")
	}
	*d = positiveDuration(v)
	return nil
}
