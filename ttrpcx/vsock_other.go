//go:build !linux

package ttrpcx

import (
	"context"
	"errors"
	"net"
)

var errNoVsock = errors.New("vsock exists on Linux only")

func dialVsock(context.Context, vsockAddr) (net.Conn, error) { return nil, errNoVsock }

func listenVsock(vsockAddr) (net.Listener, error) { return nil, errNoVsock }
