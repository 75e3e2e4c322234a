// Starter-grpc is what starter would be with grpc-go: the same methods, flags, logs, checks of peers,
// mutual TLS, limits, reflection, heap floor and drain, with what grpc-go has for them. What it lacks (limits per user,
// checks of frames, certificates that are read again) makes it smaller, not larger. It has flags and logs of its own,
// because those of package cli link ttrpc.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"example.com/ttrpc-starter/bench/internal/echo/grpcecho"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "starter-grpc:", err)
		os.Exit(1)
	}
}

type options struct {
	address            string
	uids, gids         ids
	cert, key, ca      string
	insecure           bool
	maxCalls, maxConns uint
	ioTimeout          time.Duration
	shutdownTimeout    time.Duration
	callTimeout        time.Duration
	reflection         *bool // nil: for unix sockets only
	floor              heapfloor.Size
	logFormat          string
}

func (o *options) register(flags *flag.FlagSet) {
	flags.StringVar(&o.address, "address", "", "`address` to listen at: unix://PATH or tcp://HOST:PORT")
	flags.Var(&o.uids, "allow-uid", "`user` that may connect, in addition to root and your own; repeatable")
	flags.Var(&o.gids, "allow-gid", "`group` whose members' processes may connect; repeatable")
	flags.StringVar(&o.cert, "tls-cert", "", "PEM `file` with this side's certificate, for tcp://")
	flags.StringVar(&o.key, "tls-key", "", "PEM `file` with the certificate's private key")
	flags.StringVar(&o.ca, "tls-ca", "", "PEM `file` with the certificates that the other side's must go back to")
	flags.BoolVar(&o.insecure, "insecure", false, "allow tcp:// without TLS")
	flags.UintVar(&o.maxCalls, "max-calls", 256, "`number` of calls of one connection that run at once")
	flags.UintVar(&o.maxConns, "max-connections", 16384, "`number` of connections in all")
	flags.DurationVar(&o.ioTimeout, "io-timeout", 30*time.Second, "`duration` that a peer may be silent when asked")
	flags.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 10*time.Second,
		"`duration` that open calls may go on after SIGTERM")
	flags.BoolFunc("reflection",
		"tell callers the services and messages there are (default true for unix sockets, false for TCP)",
		func(s string) error {
			on, err := strconv.ParseBool(s)
			o.reflection = &on
			return err
		})
	flags.Var(&o.floor, "heap-floor", "`size` up to which the heap may grow before it is collected; 0 is Go's default")
	flags.DurationVar(&o.callTimeout, "call-timeout", 0,
		"`duration` that a call without a deadline may take; 0 is no limit")
	flags.StringVar(&o.logFormat, "log-format", "text", "`format` of the log on standard error: text, json")
}

func (o *options) logger() *slog.Logger {
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

func run(ctx context.Context) error {
	var o options
	o.register(flag.CommandLine)
	flag.Parse()
	log := o.logger()
	network, address, ok := strings.Cut(o.address, "://")
	if !ok || network != "unix" && network != "tcp" {
		return fmt.Errorf("address %q: want unix://PATH or tcp://HOST:PORT", o.address)
	}
	if restore, err := heapfloor.Set(o.floor); err != nil {
		log.Warn("no heap floor", "error", err)
	} else {
		defer restore()
	}
	creds, err := o.credentials(network)
	if err != nil {
		return err
	}
	l, err := listen(ctx, network, address)
	if err != nil {
		return fmt.Errorf("listen at %s: %w", o.address, err)
	}
	i := &interceptor{log: log, timeout: o.callTimeout}
	server := grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxConcurrentStreams(uint32(o.maxCalls)),
		grpc.ConnectionTimeout(o.ioTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Timeout: o.ioTimeout}),
		grpc.UnaryInterceptor(i.unary),
		grpc.StreamInterceptor(i.stream),
	)
	grpcecho.Register(server)
	if o.reflection != nil && *o.reflection || o.reflection == nil && network == "unix" {
		reflection.Register(server)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timer := time.AfterFunc(o.shutdownTimeout, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	})
	log.Info("server start", "address", o.address)
	if err := server.Serve(&limitListener{Listener: l, max: int64(o.maxConns), log: log}); err != nil {
		return err
	}
	if !stop() {
		<-stopped
	}
	log.Info("server stop")
	return nil
}

// listen listens. A unix socket is its owner's alone, and so is a directory that it makes for it.
func listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network == "unix" {
		if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
			return nil, err
		}
		if conn, err := net.Dial(network, address); err == nil {
			_ = conn.Close()
			return nil, errors.New("address in use by another server")
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(address)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err == nil && network == "unix" {
		err = os.Chmod(address, 0o600)
	}
	return l, err
}

func (o *options) credentials(network string) (credentials.TransportCredentials, error) {
	switch {
	case network == "unix":
		return &peerCredentials{insecure.NewCredentials(), o.uids, o.gids}, nil
	case o.insecure:
		return insecure.NewCredentials(), nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, fmt.Errorf("load -tls-cert and -tls-key: %w", err)
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, fmt.Errorf("load -tls-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load -tls-ca %s: no certificate in it", o.ca)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}), nil
}
