package ttrpcx

import "net"

// NewListener makes a Listener of one that Listen would not make.
func NewListener(l net.Listener, o ServerOptions) *Listener {
	return &Listener{listener: l, options: o.WithDefaults()}
}
