// Package interceptor holds what a ttrpc server and client want around every call, and nothing of sockets or services.
//
// # Server
//
// ttrpc asks an interceptor for unary calls only: it has the type for streams, ttrpc.StreamServerInterceptor, and no
// option that installs one. So every concern here is one ttrpc.StreamServerInterceptor, [Chain] makes one of several,
// and the two kinds of call meet it in two ways:
//
//   - [Unary] shows it a unary call as a stream of one message, for ttrpc.WithUnaryServerInterceptor.
//   - [Streams] puts it around the streaming methods of a service, when the service is registered.
//
// ttrpcx.Server does both.
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
// [ChainClient] makes one interceptor of several. [ClientLog] stands outside of [ClientStatus]. ttrpc runs neither for
// streams; ttrpcx.Client does. Elsewhere, errors of streams go through [StatusError].
//
// # ttrpc's own log
//
// [ContainerdLog] takes it to slog.
package interceptor
