//go:build !linux && !darwin

package ttrpcx

import "net"

func peerCredentials(*net.UnixConn) (*Credentials, error) { return nil, errCannotTell }
