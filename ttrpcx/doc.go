// Package transport takes ttrpc from an address to a connection and back: it parses addresses, listens, dials and serves.
// It knows sockets and no services.
package ttrpcx
