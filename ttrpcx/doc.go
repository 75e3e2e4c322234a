// Package ttrpcx gives a ttrpc program what ttrpc leaves to its users: sockets that are safe, limits on what a peer can do, a
// shutdown that loses no call, a client that outlives its server, and interceptors, metadata and deadlines for streams.
//
// # A server and a client
//
// [NewServer] builds a server with all of that, [NewClient] dials one. Both take a struct of options whose zero values are
// usable, and so are both types where generated code wants a [ttrpc.Server] or a [ttrpc.Client]. See their examples.
//
// # A program that exists already
//
// Two lines of a ttrpc server change, the one that listens and the one that serves; the server itself stays as it is:
//
//	l, err := ttrpcx.Listen(ctx, ttrpcx.ServerOptions{Address: "unix:///run/app/app.sock"})
//	err = ttrpcx.Serve(ctx, server, l)
//
// and one line of a client, the one that dials:
//
//	conn, err := ttrpcx.Dial(ctx, ttrpcx.ClientOptions{Address: "unix:///run/app/app.sock"})
//
// # The pieces
//
// Package wire has the two connections, package interceptor what runs around each call, package reflection gRPC's server
// reflection, and package heapfloor trades memory for fewer collections of garbage. Each can be used without the others.
package ttrpcx
