// Package endpoint is where a contender's server is, and the sockets there for those that bring none of their own.
package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Endpoint is an address, and the certificates to use there.
type Endpoint struct {
	Address string // unix://PATH or tcp://HOST:PORT
	Certs   string // directory with ca.pem and NAME.pem, NAME-key.pem of client and server; empty for no TLS
}

// Split returns the network and the address as package net has them.
func (e Endpoint) Split() (network, address string) {
	network, address, _ = strings.Cut(e.Address, "://")
	return network, address
}

// Dial connects and, where there are certificates, shakes hands.
func (e Endpoint) Dial(ctx context.Context) (net.Conn, error) {
	if e.Certs == "" {
		return e.DialPlain(ctx)
	}
	config, err := e.Client()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", strings.TrimPrefix(e.Address, "tcp://"))
}

// DialPlain connects, and leaves TLS to the caller.
func (e Endpoint) DialPlain(ctx context.Context) (net.Conn, error) {
	network, address := e.Split()
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Listen is Dial's other side. It returns the address to dial, too, which has the port that was taken.
func (e Endpoint) Listen(ctx context.Context) (net.Listener, string, error) {
	l, address, err := e.ListenPlain(ctx)
	if err != nil || e.Certs == "" {
		return l, address, err
	}
	config, err := e.Server()
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	return tls.NewListener(l, config), address, nil
}

// ListenPlain is DialPlain's other side.
func (e Endpoint) ListenPlain(ctx context.Context) (net.Listener, string, error) {
	network, address := e.Split()
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, "", err
	}
	return l, network + "://" + l.Addr().String(), nil
}

// Client returns the client's side of mutual TLS 1.3.
func (e Endpoint) Client() (*tls.Config, error) { return e.config("client") }

// Server returns the server's side.
func (e Endpoint) Server() (*tls.Config, error) { return e.config("server") }

// File returns the path of a certificate's file.
func (e Endpoint) File(name string) string { return filepath.Join(e.Certs, name) }

// config is as ttrpcx has it, which would link ttrpc into every contender.
func (e Endpoint) config(name string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(e.File(name+".pem"), e.File(name+"-key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(e.File("ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s has no certificate", e.File("ca.pem"))
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{pair},
		RootCAs:                pool,
		ClientCAs:              pool,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ServerName:             "localhost",
		SessionTicketsDisabled: true,
	}, nil
}
