package ttrpcx

import "net"

// NewListener returns a Listener for a net.Listener that Listen would not return.
func NewListener(l net.Listener, o ServerOptions) *Listener {
	return &Listener{listener: l, options: o.WithDefaults()}
}
