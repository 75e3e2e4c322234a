package ttrpcx

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx/internal/loglimit"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// TLSFiles names the PEM files for one end of a mutual TLS connection. All three are needed.
type TLSFiles struct {
	Cert string // this end's certificate, followed by the intermediate certificates
	Key  string // the certificate's private key
	CA   string // the certificate authorities that may have issued the peer's certificate
}

// ServerOptions are the address, the allowed peers, the limits and the interceptors of a server. The zero value of each
// field except Address is usable.
type ServerOptions struct {
	// Address is the address to listen at, in a form that ParseAddress takes. It must be set, for example to the result
	// of DefaultAddress.
	Address string

	// Allow is for unix sockets and vsock. It names the users, groups and machines that may connect in addition to
	// root, the server's user and the host.
	Allow Allow

	// TLS is for TCP. TCP needs either all files of TLS, or Insecure.
	TLS TLSFiles

	// Insecure turns TLS off. Then anybody on the network can make calls, and read and change the calls of others.
	Insecure bool

	// MaxCalls is the number of calls of one connection that run at once. Further calls wait. Default: 256.
	MaxCalls int

	// MaxUserCalls is the number of calls of one user that run at once, on all connections. A call runs until its
	// handler has returned, even if its connection has gone. Further calls get ResourceExhausted. Only a server of
	// NewServer counts them. Default: 4096.
	MaxUserCalls int

	// MaxMemory is the number of bytes that the calls of all users may make the server hold, as an estimate: messages
	// that arrive, wait, run or are answered, and what handlers Reserve. Further calls get ResourceExhausted. One user
	// may hold as much as is left for all others, and twice as much with answers: half of it, or two thirds, if there
	// is no other. Without NewServer, answers and messages of streams count only in part: see wire.Guard. Default: 128
	// MiB.
	MaxMemory int

	// MaxConnections is the number of connections that may be open. Further ones are closed. Default: 16384. There are
	// fewer if the process may not have the descriptors (RLIMIT_NOFILE): an eighth of these, 512 at most, is a reserve
	// for the program. With TLS, handshakes that are not finished have a pool of their own: an eighth as many, from 16
	// to 1024. In a full pool, a new one takes the place of one from the network that has most. A network is an IPv4
	// address or an IPv6 /64.
	MaxConnections int

	// MaxUserConnections is the number of connections that one user may have. A user is a uid, the subject of a
	// certificate, a CID or, on plain TCP, a host. Default: three quarters of MaxConnections, so that one user cannot
	// take all.
	MaxUserConnections int

	// IOTimeout is the time that a peer has to finish a frame that it has begun, to read bytes that were written to it,
	// and, if it is less than 5 s, to finish a TLS handshake. An idle connection may stay open. Default: 30 s.
	IOTimeout time.Duration

	// ShutdownTimeout is the time that open calls have to finish, and peers to take their answers, when the server
	// stops. Default: 10 s.
	ShutdownTimeout time.Duration

	// Services describes services of the server whose .proto files are not linked into the program. A peer that opens a
	// stream on a service that is neither here nor linked in is disconnected. NewServer adds the services that are
	// registered with it. Default: none.
	Services map[string]*ttrpc.ServiceDesc

	// Logger gets the events of connections, such as a refused peer. A server of NewServer also logs a line for each
	// call. Connections and calls wait for it, so it must not block for long. Default: slog.Default(). WithDefaults
	// limits the logger to MaxLogLines. Give the result to handlers, too, because peers can make them log as often as
	// they like.
	Logger *slog.Logger

	// MaxLogLines is the number of lines with the same message, and the same attribute "code" if there is one, that are
	// logged in a minute. Then one line has the number of those that were left out. So errors are seen during a flood
	// of other lines. Default: 100. There is no limit if it is negative.
	MaxLogLines int

	// Interceptors run around each call, unary or streaming. The first is the outermost. They run inside NewServer's
	// own interceptors, so a panic or an answer that is too large is handled for them, too. Only NewServer uses them.
	Interceptors []ttrpc.StreamServerInterceptor

	// CallTimeout is the time that a call may take, if its own deadline is not earlier. Only NewServer uses it.
	// Default: no limit.
	CallTimeout time.Duration

	// Reflection offers gRPC's server reflection, which lists the services, methods and messages to callers. Only
	// NewServer uses it. Default: true for unix sockets, false for TCP.
	Reflection *bool
}

// WithDefaults returns the options with the defaults in place of zero values.
func (o ServerOptions) WithDefaults() ServerOptions {
	o.MaxCalls = cmp.Or(o.MaxCalls, wire.DefaultMaxCalls)
	o.MaxUserCalls = cmp.Or(o.MaxUserCalls, wire.DefaultMaxUserCalls)
	o.MaxMemory = cmp.Or(o.MaxMemory, wire.DefaultMaxMemory)
	o.MaxConnections = cmp.Or(o.MaxConnections, 16384)
	o.MaxUserConnections = cmp.Or(o.MaxUserConnections, max(1, o.MaxConnections*3/4))
	o.IOTimeout = cmp.Or(o.IOTimeout, wire.DefaultIOTimeout)
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, 10*time.Second)
	o.MaxLogLines = cmp.Or(o.MaxLogLines, 100)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if _, limited := o.Logger.Handler().(loglimit.Handler); !limited && o.MaxLogLines > 0 {
		o.Logger = slog.New(loglimit.New(o.Logger.Handler(), o.MaxLogLines))
	}
	return o
}

// Validate returns an error if the options are wrong. It opens nothing. An error about an option other than Address is
// an *OptionError.
func (o ServerOptions) Validate() error {
	a, err := ParseAddress(o.Address)
	if err != nil {
		return err
	}
	switch a.scheme {
	case schemeAbstract:
		return fmt.Errorf("address %q: any user could listen there before the server does: use unix:PATH", a)
	case schemeHvsock:
		return fmt.Errorf("address %q: a guest's connections arrive at another socket: use unix:PATH_PORT", a)
	}
	for _, number := range []struct {
		option
		value int64
	}{
		{"MaxCalls", int64(o.MaxCalls)},
		{"MaxUserCalls", int64(o.MaxUserCalls)},
		{"MaxMemory", int64(o.MaxMemory)},
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

// ClientOptions are the address, the allowed servers and the interceptors of a client. The zero value of each field
// except Address is usable.
type ClientOptions struct {
	// Address is the address to connect to, in a form that ParseAddress takes. It must be set.
	Address string

	// Allow is for unix sockets. It names the users and groups whose processes may be the server, in addition to root
	// and the client's user.
	Allow Allow

	// TLS is for TCP. TCP needs either all files of TLS, or Insecure. The files are read for each connection.
	TLS TLSFiles

	// Insecure turns TLS off. Then anybody on the network can read and change the calls.
	Insecure bool

	// IOTimeout is the time that the server has to read bytes that were written to it. Default: 30 s.
	IOTimeout time.Duration

	// KeepAlive is the silence after which a server that has open calls is asked whether it lives. If it does not
	// answer within the same time, the connection is lost, and its calls end with Unavailable. Set it, for example to
	// 10 s, where a server can go without closing its connections, as on TCP and vsock. See wire.ClientOptions.
	// Default: off.
	KeepAlive time.Duration

	// WaitForReady makes a call wait while there is no server, until the call's deadline. By default, such a call fails
	// at once with Unavailable.
	WaitForReady bool

	// Logger gets a line when the connection is lost and when it is made again. A client of NewClient also logs a line
	// for each call. Default: slog.Default().
	Logger *slog.Logger

	// Interceptors run around each call, unary or streaming: see Client. The first is the outermost. Only NewClient
	// uses them.
	Interceptors []ttrpc.UnaryClientInterceptor
}

// Validate returns an error if the options are wrong. It opens nothing. An error about an option other than Address is
// an *OptionError.
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
	if o.KeepAlive < 0 {
		return negative("KeepAlive")
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
	optionCIDs     option = "Allow.CIDs"
)

// validatePeer checks the options that say which peers are allowed.
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
	case (some || insecure) && a.scheme != schemeTCP && a.scheme != schemeSystemd:
		return optionErrorf("address %q: %s, %s, %s and %s are for TCP; here the kernel tells who the peer is",
			a, optionCert, optionKey, optionCA, optionInsecure)
	case (a.scheme == schemeTCP || a.scheme == schemeVsock) && allow.addsPeers():
		return optionErrorf("address %q: %s and %s are for unix sockets; %s says which peers are allowed over TCP, "+
			"and %s over vsock", a, optionUIDs, optionGIDs, optionCA, optionCIDs)
	case len(allow.CIDs) > 0 && a.scheme != schemeVsock:
		return optionErrorf("address %q: %s is for vsock", a, optionCIDs)
	}
	return nil
}

func negative(o option) error {
	return optionErrorf("%s is negative: want a number above zero, or zero for the default", o)
}

// OptionError is an error about options. Its text names them as fields of ServerOptions or ClientOptions.
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

// Named returns the error's text with the result of name in place of each option's name. Use it to show the names of a
// program's flags.
func (e *OptionError) Named(name func(option string) string) string {
	args := slices.Clone(e.args)
	for i, arg := range args {
		if o, ok := arg.(option); ok {
			args[i] = name(string(o))
		}
	}
	return fmt.Sprintf(e.format, args...)
}
