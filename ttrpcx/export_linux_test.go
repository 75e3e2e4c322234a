package ttrpcx

import (
	"net"
	"os"
)

// MapsAll is for tests of what cannot be had on every machine.
var MapsAll = mapsAll

// NewVsockConn returns a connection of vsock from the machine cid. fd is any non-blocking stream socket.
func NewVsockConn(fd int, cid uint32) net.Conn {
	return &vsockConn{file: os.NewFile(uintptr(fd), "vsock"), local: vsockAddr{3, 1024}, remote: vsockAddr{cid, 5000}}
}
