package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

const synopsis = `Passes calls of gRPC, Connect, gRPC-Web and plain HTTP clients on to a ttrpc server.

It asks the server for its schema by reflection, or takes that from a file. Who may call what is for a proxy in front
or for the handlers to decide: they find the caller's verified identity in the metadata.`

// options are the values of the flags.
type options struct {
	listen     string               // HOST:PORT
	listenGRPC string               // HOST:PORT; empty for none
	metrics    string               // HOST:PORT; empty for none
	server     ttrpcx.ClientOptions // of the backend
	protoset   string
	tls        ttrpcx.TLSFiles
	insecure   bool
	origins    []string

	maxMessage, maxHeader, maxMemory     heapfloor.Size
	maxStreams, maxCalls, maxConnections int
	connectTimeout, ioTimeout, shutdown  time.Duration

	log *slog.Logger
}

func parse(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{maxMessage: wire.MaxPayload, maxHeader: 8 << 10, maxMemory: 256 << 20}
	flags := cli.NewFlagSet("ttgate", synopsis)
	listen := flags.String("listen", "tcp://localhost:8443", "`address` to listen at: tcp://HOST:PORT")
	listenGRPC := flags.String("listen-grpc", "",
		"another `address`, for gRPC only, which is faster there; for clients that are trusted, because -max-memory "+
			"does not count their requests")
	flags.StringVar(&o.server.Address, "backend", ttrpcx.DefaultAddress(cli.App),
		"`address` of the ttrpc server: unix:PATH, a path, unix-abstract:NAME, vsock://CID:PORT or hvsock://PATH:PORT")
	cli.AllowFlags(flags, &o.server.Allow, "may run the ttrpc server")
	flags.StringVar(&o.protoset, "protoset", "",
		"`file` with the server's schema, as buf build -o FILE writes it, for a server without reflection")
	flags.StringVar(&o.tls.Cert, "tls-cert", "", "PEM `file` with the certificate to show to clients")
	flags.StringVar(&o.tls.Key, "tls-key", "", "PEM `file` with the certificate's private key")
	flags.StringVar(&o.tls.CA, "tls-ca", "",
		"PEM `file` with the certificate authorities of clients, which then need a certificate")
	flags.BoolVar(&o.insecure, "insecure", false,
		"serve without TLS: anybody on the network can read and change calls")
	flags.Func("cors-origin", "`origin`, such as https://app.example.com, whose pages may call; repeatable",
		func(s string) error {
			u, err := url.Parse(s)
			if err != nil || u.Scheme == "" || u.Host == "" || s != u.Scheme+"://"+u.Host {
				return errors.New("want SCHEME://HOST or SCHEME://HOST:PORT")
			}
			o.origins = append(o.origins, s)
			return nil
		})
	flags.StringVar(&o.metrics, "metrics", "",
		"`address` of this machine, such as localhost:9090, to serve /metrics for Prometheus at")
	flags.Var(&o.maxMessage, "max-message", "`size` of a message; ttrpc's own limit is 4MiB")
	flags.Var(&o.maxHeader, "max-header", "`size` of the header of a call")
	flags.Var(&o.maxMemory, "max-memory", "`size` that requests may take which are arriving")
	cli.PositiveIntVar(flags, &o.maxStreams, "max-streams", 256, "`number` of calls of one connection that run at once")
	cli.PositiveIntVar(flags, &o.maxCalls, "max-calls", 4096, "`number` of calls that run at once")
	cli.PositiveIntVar(flags, &o.maxConnections, "max-connections", 4096,
		"`number` of connections; of this, and of calls and memory, one network address may have three quarters")
	cli.PositiveDurationVar(flags, &o.connectTimeout, "connect-timeout", 5*time.Second,
		"`duration` that connecting to the server, and asking it for its schema, may take")
	cli.PositiveDurationVar(flags, &o.ioTimeout, "io-timeout", 30*time.Second,
		"`duration` that a client may take for the header of a call, and be silent with no call open, four times that")
	cli.PositiveDurationVar(flags, &o.shutdown, "shutdown-timeout", 10*time.Second,
		"`duration` that open calls may take after SIGTERM")
	lines := ttrpcx.ServerOptions{}.WithDefaults().MaxLogLines
	logger := cli.LogFlags(flags, stderr, &lines)
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return nil, err
	}
	o.log = logger()
	o.server.Logger = slog.New(slog.DiscardHandler) // the gate logs by itself when the server comes and goes
	return o, o.validate(*listen, *listenGRPC)
}

func (o *options) validate(listen, listenGRPC string) (err error) {
	if o.listen, err = hostPort("-listen", listen); err != nil {
		return err
	}
	if listenGRPC != "" {
		if o.listenGRPC, err = hostPort("-listen-grpc", listenGRPC); err != nil {
			return err
		}
	}
	switch err := o.server.Validate(); {
	case strings.HasPrefix(o.server.Address, "tcp:"):
		return cli.Usagef("-backend is %q: want a socket of this machine, because ttgate runs beside the server",
			o.server.Address)
	case err != nil:
		return &cli.UsageError{Err: err}
	}
	switch {
	case o.insecure && o.tls != ttrpcx.TLSFiles{}:
		return cli.Usagef("-insecure excludes -tls-cert, -tls-key and -tls-ca")
	case !o.insecure && (o.tls.Cert == "" || o.tls.Key == ""):
		return cli.Usagef("-tls-cert and -tls-key are needed, or else -insecure")
	case o.maxMessage <= 0 || o.maxMessage > wire.MaxPayload:
		return cli.Usagef("-max-message is %s: want more than zero and at most 4MiB, ttrpc's limit", &o.maxMessage)
	case o.maxMemory < 2*o.maxMessage:
		return cli.Usagef("-max-memory is %s: want room for two messages of -max-message at least", &o.maxMemory)
	case o.maxHeader <= 0 || o.maxHeader > 1<<20:
		return cli.Usagef("-max-header is %s: want more than zero and at most 1MiB", &o.maxHeader)
	}
	if o.metrics != "" {
		host, _, err := net.SplitHostPort(o.metrics)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return cli.Usagef("-metrics is %q: want localhost:PORT, or a loopback IP, because it has no TLS",
				o.metrics)
		}
	}
	return nil
}

func hostPort(flag, address string) (string, error) {
	s, ok := strings.CutPrefix(address, "tcp://")
	if _, _, err := net.SplitHostPort(s); !ok || err != nil {
		return "", cli.Usagef("%s is %q: want tcp://HOST:PORT", flag, address)
	}
	return s, nil
}
