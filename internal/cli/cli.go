// Package cli has what both mains need: signals, flags, logs, exit codes, and the output of messages.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// App is the application's name. The default socket of the server and the client is in a directory of that name.
const App = "ttrpc-starter"

// Exit codes. A failed RPC exits with ExitRPC plus its status code, as grpcurl does. A code that gRPC does not have
// counts as Unknown, as gRPC's own clients take it. A server may send any number, and ExitRPC+192 would be success.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
	ExitRPC     = 64
)

const exitCodes = `
Exit codes: 0 success or help, 1 failure, 2 usage, 64+code a call that failed with that RPC status code,
66 also for a code that gRPC does not have.
`

// Run is a program. It gets everything from the operating system as arguments, so that tests can call it. ctx ends at
// the first SIGINT or SIGTERM.
type Run func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error

// Main runs the program called name, prints its error on standard error, and exits. A second SIGINT or SIGTERM ends the
// process at once.
func Main(name string, run Run) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	stderr := &logQueue{file: os.Stderr}
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, stderr)
	var reported *ReportedError
	if err != nil && !errors.Is(err, flag.ErrHelp) && !errors.As(err, &reported) {
		fmt.Fprintf(stderr, "%s: %s\n", name, errorText(err))
	}
	stderr.flush(time.Second)
	os.Exit(ExitCode(err))
}

// ExitCode returns the exit code for the error of a Run.
func ExitCode(err error) int {
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		if s.Code() > codes.Unauthenticated {
			return ExitRPC + int(codes.Unknown)
		}
		return ExitRPC + int(s.Code())
	}
	return ExitFailure
}

// ReportedError is an error that the program has printed itself. Main only sets the exit code.
type ReportedError struct{ Err error }

func (e *ReportedError) Error() string { return e.Err.Error() }
func (e *ReportedError) Unwrap() error { return e.Err }

// UsageError means that the command line is wrong.
type UsageError struct{ Err error }

// Usagef returns a UsageError with a formatted message.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

func (e *UsageError) Error() string { return e.Err.Error() + " (-h shows the usage)" }
func (e *UsageError) Unwrap() error { return e.Err }

// NewFlagSet returns an empty flag set for the program called name. The help starts with the one-line synopsis.
func NewFlagSet(name, synopsis string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Parse prints the error or the help
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "%s\n\nUsage: %s [flags]\n\n", synopsis, name)
		flags.PrintDefaults()
		fmt.Fprint(flags.Output(), exitCodes)
	}
	return flags
}

// Parse parses args. For -h, it prints the help on stdout and returns flag.ErrHelp. For an unknown flag, a wrong value
// or an argument, it prints the usage on stderr and returns a UsageError.
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

// ChoiceVar adds a flag whose value is one of the choices. *value has the default; if that is no choice, the first is.
func ChoiceVar(flags *flag.FlagSet, value *string, name string, choices []string, usage string) {
	if !slices.Contains(choices, *value) {
		*value = choices[0]
	}
	list := strings.Join(choices, ", ")
	flags.Func(name, fmt.Sprintf("%s: %s (default %s)", usage, list, *value), func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("want one of %s", list)
		}
		*value = s
		return nil
	})
}

// TextVar adds a flag for a string in a message, which must be UTF-8.
func TextVar(flags *flag.FlagSet, value *string, name, byDefault, usage string) {
	*value = byDefault
	flags.Func(name, fmt.Sprintf("%s (default %q)", usage, byDefault), func(s string) error {
		if !utf8.ValidString(s) {
			return errors.New("want valid UTF-8, because protobuf allows no other text")
		}
		*value = s
		return nil
	})
}
