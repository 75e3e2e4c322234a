// Package wire knows ttrpc's frames and what may follow what on a connection, and nothing of sockets or services. It
// makes a stock ttrpc.Server or ttrpc.Client safe and faster by wrapping the net.Conn that is handed to it.
//
// The frame is described in https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md.
package wire
