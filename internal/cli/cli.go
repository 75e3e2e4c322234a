// Package cli is what the two mains share with the operating system: signals, flags, logs and exit codes.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes. A failed RPC exits with ExitRPC plus its status code, as grpcurl does.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
	ExitRPC     = 64
)

const exitCodes = `
Exit codes: 0 success or help, 1 failure, 2 usage, 64+code a call that failed with that RPC status code.
`

// Run is a program without its ties to the operating system. ctx ends with the first SIGINT or SIGTERM.
type Run func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error

// Main runs the program called name, reports its error on standard error and exits. A second SIGINT or SIGTERM ends the
// process at once.
func Main(name string, run Run) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	var reported *ReportedError
	if err != nil && !errors.Is(err, flag.ErrHelp) && !errors.As(err, &reported) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	os.Exit(ExitCode(err))
}

// ExitCode returns the exit code for what a Run returned.
func ExitCode(err error) int {
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return ExitRPC + int(s.Code())
	}
	return ExitFailure
}

// ReportedError is an error that the program has reported itself, so that Main only sets the exit code.
type ReportedError struct{ Err error }

func (e *ReportedError) Error() string { return e.Err.Error() }
func (e *ReportedError) Unwrap() error { return e.Err }

// UsageError says that the command line cannot be followed as it was given.
type UsageError struct{ Err error }

// Usagef returns a UsageError with a formatted message.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

func (e *UsageError) Error() string { return e.Err.Error() + " (-h shows the usage)" }
func (e *UsageError) Unwrap() error { return e.Err }

// NewFlagSet returns an empty flag set for the program called name, whose help starts with the one-line synopsis.
func NewFlagSet(name, synopsis string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Parse reports, once, to the right place
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s\n\nUsage: %s [flags]\n\n", synopsis, name)
		flags.PrintDefaults()
		fmt.Fprint(flags.Output(), exitCodes)
	}
	return flags
}

// Parse parses args. Help that was asked for goes to stdout, with flag.ErrHelp as the error; a flag or argument that is
// not known puts the usage on stderr and is a UsageError.
func Parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	usage := flags.Usage
	flags.Usage = func() {}
	err := flags.Parse(args)
	flags.Usage = usage
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
	default:
		flags.SetOutput(stderr)
		err = &UsageError{err}
	}
	flags.Usage()
	return err
}

// OptionalBool is a boolean flag whose default depends on what is not known yet.
type OptionalBool struct{ given, value bool }

// Or returns the flag's value, or else the default.
func (b *OptionalBool) Or(byDefault bool) bool {
	if b.given {
		return b.value
	}
	return byDefault
}

// String returns the value, or nothing if none is given.
func (b *OptionalBool) String() string {
	if !b.given {
		return ""
	}
	return strconv.FormatBool(b.value)
}

// Set accepts what strconv.ParseBool does.
func (b *OptionalBool) Set(s string) error {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true or false")
	}
	*b = OptionalBool{given: true, value: v}
	return nil
}

// IsBoolFlag lets package flag take the flag without a value for true.
func (b *OptionalBool) IsBoolFlag() bool { return true }
