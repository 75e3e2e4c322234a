package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/cli"
)

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Error() string { return e.error.Error() + "\n  " + e.hint }
func (e *hinted) Unwrap() error { return e.error }

// explain adds to an error what to try next, if that is known.
func explain(o *options, err error) error {
	var reported *cli.ReportedError
	if hint := hint(o, err); hint != "" && !errors.As(err, &reported) {
		return &hinted{err, hint}
	}
	return err
}

// worded is an error without gRPC's prefix for the errors of programs.
type worded struct{ error }

var grpcPrefix = regexp.MustCompile(`rpc error: code = \w+ desc = `)

func (e worded) Error() string { return grpcPrefix.ReplaceAllString(e.error.Error(), "") }
func (e worded) Unwrap() error { return e.error }

func hint(o *options, err error) string {
	switch {
	case errors.Is(err, errNoReflection):
		return "Give it with -proto FILE, -protoset FILE or -buf DIR."
	case plainServer(err):
		return "If the server does not speak TLS: -plaintext does without."
	case o.plaintext && path(o.address) == "" && closed(err):
		return "The server closed the connection. If it wants TLS: leave out -plaintext."
	case errors.Is(err, fs.ErrPermission):
		return owners(o.address)
	case status.Code(err) == codes.DeadlineExceeded && o.maxTime > 0:
		return fmt.Sprintf("-max-time is %v seconds.", o.maxTime)
	case errors.Is(err, syscall.ECONNREFUSED) && path(o.address) != "":
		return "The socket is there, but nobody listens: its server has ended. Start it again."
	}
	var failed *callError
	if !errors.As(err, &failed) {
		return ""
	}
	switch status.Code(err) {
	case codes.ResourceExhausted:
		if strings.Contains(failed.status.Message(), "maximum") {
			return "ttrpc has no messages over 4 MiB (4194304 bytes): ask for less at once, " +
				"or use a method that streams."
		}
	case codes.Unavailable:
		return "The server closed the connection. It may have ended. " +
			"Stock ttrpc servers also do this for an answer over 4 MiB."
	case codes.Unimplemented:
		if failed.fromTTRPC() {
			return "The server does not serve this method: its version may differ from the schema's. " +
				"list shows what it has, if it has reflection."
		}
	}
	return ""
}

// plainServer reports whether TLS has failed as it does with a server that speaks something else.
func plainServer(err error) bool {
	handshake, ok := errors.AsType[handshakeError](err)
	if !ok {
		return false
	}
	_, record := errors.AsType[tls.RecordHeaderError](handshake)
	return record || errors.Is(handshake, io.EOF) || errors.Is(handshake, syscall.ECONNRESET) ||
		errors.Is(handshake, os.ErrDeadlineExceeded) || errors.Is(handshake, context.DeadlineExceeded)
}

// closed reports whether the server has closed the connection in place of an answer.
func closed(err error) bool {
	_, asked := errors.AsType[unanswered](err)
	return asked || status.Code(err) == codes.Unavailable
}

// path is that of the unix socket at the address; "" for others.
func path(address string) string {
	for _, scheme := range []string{"tcp:", "unix-abstract:", "vsock:", "hvsock:"} {
		if strings.HasPrefix(address, scheme) {
			return ""
		}
	}
	return strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
}

// owners says which user the socket belongs to, or the nearest directory above it that can be looked at.
func owners(address string) string {
	for p := path(address); p != ""; p = filepath.Dir(p) {
		if info, err := os.Stat(p); err == nil {
			return fmt.Sprintf("%s is %s's, with mode %s. Call as that user or as root, or let the server allow you.",
				p, owner(info), info.Mode())
		}
		if p == filepath.Dir(p) {
			break
		}
	}
	return ""
}
