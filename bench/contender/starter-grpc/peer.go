package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"google.golang.org/grpc/credentials"
)

// ids is a repeatable flag of numbers.
type ids []uint32

func (i *ids) String() string { return fmt.Sprint(*i) }

func (i *ids) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	*i = append(*i, uint32(n))
	return err
}

// peerCredentials lets in root, the server's own user and those that are allowed.
type peerCredentials struct {
	credentials.TransportCredentials
	uids, gids ids
}

// owner is the user that connected.
type owner struct {
	credentials.CommonAuthInfo
	uid, gid uint32
	pid      int32
}

func (owner) AuthType() string { return "peer" }

func (o owner) String() string { return fmt.Sprintf("uid=%d gid=%d pid=%d", o.uid, o.gid, o.pid) }

func (c *peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	raw, err := conn.(*limitedConn).Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var o owner
	var optErr error
	if err := raw.Control(func(fd uintptr) { o, optErr = ownerOf(int(fd)) }); err != nil {
		return nil, nil, err
	}
	if optErr != nil {
		return nil, nil, optErr
	}
	if o.uid != 0 && o.uid != uint32(os.Geteuid()) &&
		!slices.Contains(c.uids, o.uid) && !slices.Contains(c.gids, o.gid) {
		return nil, nil, fmt.Errorf("uid %d is not allowed", o.uid)
	}
	o.SecurityLevel = credentials.PrivacyAndIntegrity
	return conn, o, nil
}

func (c *peerCredentials) Clone() credentials.TransportCredentials { return c }
