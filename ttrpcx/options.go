package ttrpcx

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/containerd/ttrpc"
)

// TLSFiles names the PEM files of one side of mutual TLS. All three are needed.
type TLSFiles struct {
	Cert string // this side's certificate, followed by the intermediate ones
	Key  string // the certificate's private key
	CA   string // the certificates that the other side's must go back to
}

// ServerOptions say where and for whom a server listens, within which limits, and what runs around its calls. The zero value
// of each field is usable, except that of Address.
type ServerOptions struct {
	// Address is where to listen, in a form that ParseAddress takes. It must be set: DefaultAddress has a good one.
	Address string

	// Allow adds to the users and groups that may connect to a unix socket: root and the server's own user.
	Allow Allow

	// TLS is for TCP, where either all its files or Insecure must be given.
	TLS TLSFiles

	// Insecure turns TLS off: anybody that reaches the port may call, and read and change what others call.
	Insecure bool

	// MaxCalls is how many calls of one connection run at once; further ones wait. Default 256.
	MaxCalls int

	// MaxConnections bounds the connections in all; further ones are closed. Default 16384.
	MaxConnections int

	// MaxUserConnections bounds the connections of one user: a uid, a certificate's subject, or for plain TCP a host.
	// Until its handshake is over, a TLS connection is its host's. Default: three quarters of MaxConnections, so that one
	// user leaves room for others.
	MaxUserConnections int

	// IOTimeout is how long a peer may leave a frame unfinished or not read what is written to it, and how long a TLS
	// handshake may take. An idle connection may stay. Default 30 s.
	IOTimeout time.Duration

	// ShutdownTimeout is how long open calls may go on once the server is told to stop. Default 10 s.
	ShutdownTimeout time.Duration

	// Services describes services that the server has and that are in no .proto file which is linked in: a peer that
	// streams to a method of any other is refused. NewServer adds what it registers. Default: none.
	Services map[string]*ttrpc.ServiceDesc

	// Logger gets the events of single connections, such as refused peers, and from NewServer a line for each call.
	// Default: slog.Default().
	Logger *slog.Logger

	// Interceptors run around each call, unary or streaming, the first outermost. They run inside of those that NewServer
	// always has, so that a panic or an answer too large is handled for them as well. Only NewServer uses them.
	Interceptors []ttrpc.StreamServerInterceptor

	// CallTimeout is how long a call without a deadline may take. Only NewServer uses it. Default: no limit.
	CallTimeout time.Duration

	// Reflection says whether to tell callers the services, methods and messages there are, in the way of gRPC's server
	// reflection. Only NewServer uses it. Default: true for unix sockets, false for TCP.
	Reflection *bool
}

// WithDefaults returns the options with the defaults in place of zero values.
func (o ServerOptions) WithDefaults() ServerOptions {
	o.MaxCalls = cmp.Or(o.MaxCalls, 256)
	o.MaxConnections = cmp.Or(o.MaxConnections, 16384)
	o.MaxUserConnections = cmp.Or(o.MaxUserConnections, max(1, o.MaxConnections*3/4))
	o.IOTimeout = cmp.Or(o.IOTimeout, 30*time.Second)
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return o
}

// Validate reports what is wrong with the options as they were given, before anything is opened. What is wrong with them
// beside the address is an *OptionError.
func (o ServerOptions) Validate() error {
	a, err := ParseAddress(o.Address)
	if err != nil {
		return err
	}
	if a.scheme == schemeAbstract {
		return fmt.Errorf("address %q: a server does not listen there, because any user could before it does: use unix:PATH", a)
	}
	for _, number := range []struct {
		option
		value int64
	}{
		{"MaxCalls", int64(o.MaxCalls)},
		{"MaxConnections", int64(o.MaxConnections)},
		{"MaxUserConnections", int64(o.MaxUserConnections)},
		{"IOTimeout", int64(o.IOTimeout)},
		{"ShutdownTimeout", int64(o.ShutdownTimeout)},
		{"CallTimeout", int64(o.CallTimeout)},
	} {
		if number.value < 0 {
			return negative(number.option)
		}
	}
	return validatePeer(a, o.TLS, o.Insecure, o.Allow)
}

// ClientOptions say where a client connects and to whom, and what runs around its calls. The zero value of each field is
// usable, except that of Address.
type ClientOptions struct {
	// Address is where to connect, in a form that ParseAddress takes. It must be set.
	Address string

	// Allow adds to the users and groups that may serve a unix socket: root and the client's own user.
	Allow Allow

	// TLS is for TCP, where either all its files or Insecure must be given. The files are read for each connection.
	TLS TLSFiles

	// Insecure turns TLS off: anybody on the way may read and change what is sent.
	Insecure bool

	// IOTimeout is how long the server may leave unread what is written to it. Default 30 s.
	IOTimeout time.Duration

	// WaitForReady lets a call that finds no server wait until there is one, for as long as its deadline allows. Default:
	// such a call fails at once with Unavailable.
	WaitForReady bool

	// Logger is told when a connection is lost and made again, and gets from NewClient a line for each call. Default:
	// slog.Default().
	Logger *slog.Logger

	// Interceptors run around each call, unary or streaming, the first outermost: see Client. Only NewClient uses them.
	Interceptors []ttrpc.UnaryClientInterceptor
}

// Validate reports what is wrong with the options as they were given, before anything is opened. What is wrong with them
// beside the address is an *OptionError.
func (o ClientOptions) Validate() error {
	a, err := ParseAddress(o.Address)
	if err != nil {
		return err
	}
	if _, _, err := a.dialable(); err != nil {
		return fmt.Errorf("address %q: %w", a, err)
	}
	if o.IOTimeout < 0 {
		return negative("IOTimeout")
	}
	return validatePeer(a, o.TLS, o.Insecure, o.Allow)
}

const (
	optionCert     option = "TLS.Cert"
	optionKey      option = "TLS.Key"
	optionCA       option = "TLS.CA"
	optionInsecure option = "Insecure"
	optionUIDs     option = "Allow.UIDs"
	optionGIDs     option = "Allow.GIDs"
)

// validatePeer checks the options that say who may be at the other end.
func validatePeer(a Address, files TLSFiles, insecure bool, allow Allow) error {
	all := files.Cert != "" && files.Key != "" && files.CA != ""
	some := files != TLSFiles{}
	switch {
	case some && insecure:
		return optionErrorf("%s turns off the TLS that %s, %s and %s ask for: give one or the other",
			optionInsecure, optionCert, optionKey, optionCA)
	case some && !all:
		return optionErrorf("TLS is mutual here: %s, %s and %s must be given together", optionCert, optionKey, optionCA)
	case a.scheme == schemeTCP && !all && !insecure:
		return optionErrorf("address %q: TCP needs %s, %s and %s (or %s, on a network that you trust)",
			a, optionCert, optionKey, optionCA, optionInsecure)
	case (some || insecure) && (a.scheme == schemeUnix || a.scheme == schemeAbstract):
		return optionErrorf("address %q: %s, %s, %s and %s are for TCP; a unix socket is protected by its owner and mode",
			a, optionCert, optionKey, optionCA, optionInsecure)
	case a.scheme == schemeTCP && allow.wide():
		return optionErrorf("address %q: %s and %s are for unix sockets; over TCP, %s says who is allowed",
			a, optionUIDs, optionGIDs, optionCA)
	}
	return nil
}

func negative(o option) error {
	return optionErrorf("%s is negative: want more than zero, or zero for the default", o)
}

// OptionError says which options do not fit, and names them as fields of ServerOptions or ClientOptions.
type OptionError struct {
	format string
	args   []any
}

// option is the name of an option in the arguments of an OptionError.
type option string

func optionErrorf(format string, args ...any) *OptionError { return &OptionError{format, args} }

func (e *OptionError) Error() string {
	return e.Named(func(option string) string { return option })
}

// Named returns the error's text with the program's own name for each option, such as that of a flag.
func (e *OptionError) Named(name func(option string) string) string {
	args := slices.Clone(e.args)
	for i, arg := range args {
		if o, ok := arg.(option); ok {
			args[i] = name(string(o))
		}
	}
	return fmt.Sprintf(e.format, args...)
}
