package ttrpcx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// vsockAddr is an address of vsock(7): a virtual machine or its host, and a port.
type vsockAddr struct{ cid, port uint32 }

// Numbers of vsock(7).
const (
	anyCID  = math.MaxUint32 // VMADDR_CID_ANY
	hostCID = 2              // VMADDR_CID_HOST
)

func (vsockAddr) Network() string { return "vsock" }

func (a vsockAddr) String() string {
	cid := "any"
	if a.cid != anyCID {
		cid = strconv.FormatUint(uint64(a.cid), 10)
	}
	return cid + ":" + strconv.FormatUint(uint64(a.port), 10)
}

func parseVsock(s string) (vsockAddr, error) {
	cid, port, _ := strings.Cut(s, ":")
	if cid == "any" {
		cid = strconv.FormatUint(anyCID, 10)
	}
	c, err := strconv.ParseUint(cid, 10, 32)
	if err != nil {
		return vsockAddr{}, fmt.Errorf("CID %q is not a number: want vsock://CID:PORT (or any, to listen)", cid)
	}
	p, err := parseVsockPort(port)
	return vsockAddr{uint32(c), p}, err
}

func parseVsockPort(s string) (uint32, error) {
	p, err := strconv.ParseUint(s, 10, 32)
	if err != nil || p == math.MaxUint32 { // VMADDR_PORT_ANY
		return 0, fmt.Errorf("port %q is not a number from 0 to %d", s, math.MaxUint32-1)
	}
	return uint32(p), nil
}

// parseHvsock parses PATH:PORT. The path may have colons.
func parseHvsock(s string) (Address, error) {
	i := max(strings.LastIndexByte(s, ':'), 0)
	path, err := parseUnix(s[:i])
	if err == nil && !strings.HasPrefix(path.rest, "/") {
		err = errors.New("want hvsock://PATH:PORT, with an absolute path")
	}
	if err != nil {
		return Address{}, err
	}
	port, err := parseVsockPort(s[i+1:])
	return Address{schemeHvsock, fmt.Sprintf("%s:%d", path.rest, port)}, err
}

// connectGuest asks the other end of a unix socket, which Firecracker or Cloud Hypervisor has made, to connect it to a
// port of the virtual machine: CONNECT PORT, which is answered by OK and a number.
func connectGuest(ctx context.Context, conn net.Conn, port string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	_, err := io.WriteString(conn, "CONNECT "+port+"\n")
	line, next := "", make([]byte, 1) // byte by byte, because the guest's bytes come after the line
	for err == nil && len(line) < 32 && !strings.HasSuffix(line, "\n") {
		if _, err = io.ReadFull(conn, next); err == nil {
			line += string(next)
		}
	}
	switch {
	case !stop():
		return fmt.Errorf("the hypervisor did not answer CONNECT: %w", ctx.Err())
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the hypervisor closed the connection: does the virtual machine listen at port %s?", port)
	case err == nil && (!strings.HasPrefix(line, "OK ") || !strings.HasSuffix(line, "\n")):
		return fmt.Errorf("the hypervisor answered %q to CONNECT, want OK and a number", line)
	}
	return err
}
