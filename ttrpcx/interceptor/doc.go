// Package interceptor holds what a ttrpc server and client want around every call, and nothing of sockets or services.
//
// # Server
//
// ttrpc asks an interceptor for unary calls only: it has the type for streams, ttrpc.StreamServerInterceptor, and no
// option that installs one. So every concern here is one ttrpc.StreamServerInterceptor, [Chain] makes one of several,
// and the two kinds of call meet it in two ways:
//
//   - [Unary] shows it a unary call as a stream of one message, for ttrpc.WithUnaryServerInterceptor.
//   - [ServerStream], [ClientStream] and [BidiStream] put it around the body of a streaming method.
//
// The latter takes one line in the method that the generated code calls:
//
//	func (s example) Echo(ctx context.Context, stream testv1.Test_EchoServer) error {
//		return interceptor.BidiStream(ctx, s.streams, "/test.v1.Test/Echo", stream, s.echo)
//	}
//
// The order matters. From the outside in:
//
//  1. [Log] stands outside of all others, so that its line tells what the caller gets.
//  2. [Recover] stands outside of whatever may panic.
//  3. [Deadline] hands its context to those further in.
//  4. [Sendable] judges the answer of the handler and reads from the context whether its time was up.
//  5. Interceptors of your own: whatever they answer, all of the above hold for it.
//
// A call of a service or method that is not registered is refused by ttrpc before any of them.
//
// # Client
//
// [ClientLog] stands outside of [ClientStatus]. ttrpc runs neither for streams: their errors go through [StatusError].
//
// # ttrpc's own log
//
// [ContainerdLog] takes it to slog.
package interceptor
