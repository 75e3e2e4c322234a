// Package interceptor has interceptors for ttrpc servers and clients: logs, recovery from panics, the count of memory,
// deadlines, and errors with a status. They know nothing about sockets or services.
//
// # Server
//
// ttrpc runs interceptors around unary calls only. It has a type for streams, ttrpc.StreamServerInterceptor, but no
// option that installs one. Here every interceptor has this type. [Chain] combines several into one, which then runs
// around both kinds of call:
//
//   - [Unary] makes it an interceptor for unary calls, for ttrpc.WithUnaryServerInterceptor.
//   - [Streams] puts it around the streaming methods of a service, when the service is registered.
//
// ttrpcx.Server does both.
//
// The order is important. From the outside in:
//
//  1. [Log] is outside all others, because it logs the answer that the caller gets.
//  2. [Recover] is outside all code that may panic.
//  3. [Memory] counts the call for as long as the handler runs. It receives for Deadline as well, which is inside it.
//  4. [Deadline] passes its context to the interceptors inside it.
//  5. [Sendable] checks the handler's answer, and checks in the context whether the deadline has passed.
//  6. Your own interceptors: all of the above applies to their answers, too.
//
// ttrpc refuses calls of an unknown service or method before it runs any interceptor.
//
// # Client
//
// [ChainClient] combines several interceptors into one. Put [ClientLog] outside [ClientStatus]. ttrpcx.Client runs both
// around streams as well. Without it, ttrpc runs them around unary calls only: pass the errors of streams to
// [StatusError].
//
// # ttrpc's own log
//
// [ContainerdLog] sends it to slog.
package interceptor
