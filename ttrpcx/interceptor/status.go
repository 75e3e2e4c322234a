package interceptor

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ClientStatus gives the errors of unary calls a status, as [StatusError] does.
func ClientStatus() ttrpc.UnaryClientInterceptor {
	return func(ctx context.Context, req *ttrpc.Request, reply *ttrpc.Response, _ *ttrpc.UnaryClientInfo,
		invoke ttrpc.Invoker,
	) error {
		return StatusError(invoke(ctx, req, reply))
	}
}

// StatusError gives an error of a ttrpc client's call or stream the status code it stands for:
//
//   - Canceled and DeadlineExceeded for the errors of a context,
//   - Unavailable for ttrpc.ErrClosed and every other sign that the connection is gone; the call may have run or not,
//   - ResourceExhausted for ttrpc.ErrStreamFull,
//   - FailedPrecondition for ttrpc.ErrStreamClosed, a send after the end of sending,
//   - Internal for ttrpc.ErrProtocol.
//
// errors.Is and errors.As still find the original. An error that has a status keeps it with all its details: those from
// the server, and ttrpc.OversizedMessageErr with ResourceExhausted. nil, io.EOF (the regular end of a stream) and
// anything unknown, which status.Code reads as Unknown, come back as they are.
func StatusError(err error) error {
	if _, ok := status.FromError(err); ok { // nil has one, too
		return err
	}
	code := clientCode(err)
	if code == codes.Unknown {
		return err
	}
	return &statusError{status.New(code, err.Error()), err}
}

func clientCode(err error) codes.Code {
	var lost *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, ttrpc.ErrStreamFull):
		return codes.ResourceExhausted
	case errors.Is(err, ttrpc.ErrStreamClosed):
		return codes.FailedPrecondition
	case errors.Is(err, ttrpc.ErrProtocol):
		return codes.Internal
	// ttrpc makes ErrClosed of the common ways to lose a connection only: a reset while it writes or an end in the
	// middle of a frame comes through as it is.
	case errors.Is(err, ttrpc.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &lost):
		return codes.Unavailable
	}
	return codes.Unknown
}

// statusError is an error with a status that still is the error it was made of.
type statusError struct {
	status *status.Status
	err    error
}

func (e *statusError) Error() string { return e.status.String() }

func (e *statusError) GRPCStatus() *status.Status { return e.status }

func (e *statusError) Unwrap() error { return e.err }

// serverStatus is the status that a ttrpc server sends for a handler's error.
func serverStatus(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.New(serverCode(err), err.Error())
}

// serverCode mirrors the unexported rule of ttrpc (convertCode in its services.go), which looks at an error itself and
// not at those it wraps.
func serverCode(err error) codes.Code {
	switch err {
	case context.Canceled:
		return codes.Canceled
	case context.DeadlineExceeded:
		return codes.DeadlineExceeded
	case os.ErrInvalid:
		return codes.InvalidArgument
	case io.EOF:
		return codes.OutOfRange
	case io.ErrUnexpectedEOF, io.ErrClosedPipe, io.ErrNoProgress, io.ErrShortBuffer, io.ErrShortWrite:
		return codes.FailedPrecondition
	}
	switch {
	case os.IsNotExist(err):
		return codes.NotFound
	case os.IsExist(err):
		return codes.AlreadyExists
	case os.IsPermission(err):
		return codes.PermissionDenied
	}
	return codes.Unknown
}
