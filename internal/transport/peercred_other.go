//go:build !linux && !darwin

package transport

import "net"

func peerCredentials(*net.UnixConn) (*Credentials, error) { return nil, errCannotTell }
