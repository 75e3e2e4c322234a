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

// ClientStatus gives each error of a call a status, as [StatusError] does.
func ClientStatus() ttrpc.UnaryClientInterceptor {
	return func(ctx context.Context, req *ttrpc.Request, reply *ttrpc.Response, _ *ttrpc.UnaryClientInfo,
		invoke ttrpc.Invoker,
	) error {
		return StatusError(invoke(ctx, req, reply))
	}
}

// StatusError gives an error of a ttrpc client's call or stream the status code that it means:
//
//   - Canceled or DeadlineExceeded for the errors of a context,
//   - Unavailable for ttrpc.ErrClosed and any other error of a lost connection; the call may have run or not,
//   - ResourceExhausted for ttrpc.ErrStreamFull,
//   - FailedPrecondition for ttrpc.ErrStreamClosed, which is the error of a send after CloseSend,
//   - Internal for ttrpc.ErrProtocol.
//
// errors.Is and errors.As still find the original error. An error that has a status keeps it, with all details. Errors
// of the server have one, and so has ttrpc.OversizedMessageErr, with ResourceExhausted. nil, io.EOF (the regular end of
// a stream) and all other errors are returned unchanged. status.Code returns Unknown for the latter.
func StatusError(err error) error {
	if _, ok := status.FromError(err); ok { // true for nil, too
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
	// ttrpc returns ErrClosed only for the common errors of a lost connection. It returns a reset during a write, and
	// an end in the middle of a frame, as they are.
	case errors.Is(err, ttrpc.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &lost):
		return codes.Unavailable
	}
	return codes.Unknown
}

// statusError is an error with a status that wraps another error.
type statusError struct {
	status *status.Status
	err    error
}

func (e *statusError) Error() string { return e.status.String() }

func (e *statusError) GRPCStatus() *status.Status { return e.status }

func (e *statusError) Unwrap() error { return e.err }

// serverStatus returns the status that a ttrpc server sends for a handler's error.
func serverStatus(err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return status.New(serverCode(err), err.Error())
}

// serverCode does the same as the function convertCode in ttrpc's services.go, which is not exported. Both look at the
// error itself and not at errors that it wraps.
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
