// Package ttrpcx adds to ttrpc what its users otherwise must build themselves: safe sockets, limits on what a peer can
// do, a shutdown that lets open calls finish, a client that connects again. Streams get interceptors, metadata and
// deadlines.
//
// # A server and a client
//
// [NewServer] returns a server with all of that, and [NewClient] a client. Both take a struct of options, whose zero
// values are usable. See the example of the package.
//
// # An existing program
//
// In an existing ttrpc server, change two lines: the one that listens and the one that serves. The server itself stays
// as it is:
//
//	l, err := ttrpcx.Listen(ctx, ttrpcx.ServerOptions{Address: "unix:///run/app/app.sock"})
//	err = ttrpcx.Serve(ctx, server, l)
//
// In an existing client, change the line that dials:
//
//	conn, err := ttrpcx.Dial(ctx, ttrpcx.ClientOptions{Address: "unix:///run/app/app.sock"})
//
// # The pieces
//
// Each of these packages can be used without the others:
//   - wire: the client's and the server's connection
//   - interceptor: the log, the recovery from panics, memory, deadlines and sizes, around each call
//   - reflection: gRPC's server reflection
//   - heapfloor: fewer garbage collections, for more memory
package ttrpcx
