package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// ParseServer adds a server's flags to flags, parses args as Parse does, and returns the options. Their logger writes
// to stderr. ttrpc's own log lines go there, too.
func ParseServer(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (ttrpcx.ServerOptions, error) {
	o := ttrpcx.ServerOptions{}.WithDefaults()
	o.MaxUserConnections = 0 // follows -max-connections
	flags.StringVar(&o.Address, "address", ttrpcx.DefaultAddress(App),
		"`address` to listen at: unix:PATH, a path, tcp://HOST:PORT, vsock://CID:PORT, or systemd: for the socket "+
			"that systemd passes")
	AllowFlags(flags, &o.Allow, "may connect")
	flags.Var(idFlag{&o.Allow.CIDs, lookupMachine}, "allow-cid",
		"`number` of a virtual machine that may connect over vsock, in addition to 2, the host; repeatable")
	tlsFlags(flags, &o.TLS, &o.Insecure)
	flags.Var((*positiveInt)(&o.MaxCalls), "max-calls", "`number` of calls of one connection that run at once")
	flags.Var((*positiveInt)(&o.MaxUserCalls), "max-user-calls",
		"`number` of calls of one user that run at once, on all connections")
	memory := heapfloor.Size(o.MaxMemory)
	flags.Var(&memory, "max-memory",
		"`size`, such as 128MiB, that calls may make the server hold; one user half of it, or two thirds with answers")
	flags.Var((*positiveInt)(&o.MaxConnections), "max-connections", "`number` of connections of all users")
	flags.Var((*positiveInt)(&o.MaxUserConnections), "max-user-connections",
		"`number` of connections of one user (default three quarters of -max-connections)")
	flags.Var((*positiveDuration)(&o.IOTimeout), "io-timeout",
		"`duration` that a peer may take to finish a frame or to read an answer")
	flags.Var((*positiveDuration)(&o.ShutdownTimeout), "shutdown-timeout",
		"`duration` that open calls may take after SIGTERM")
	flags.DurationVar(&o.CallTimeout, "call-timeout", 0,
		"`duration` that a call may take, if its own deadline is not earlier; 0 means no limit")
	flags.BoolFunc("reflection",
		"tell callers which services and messages there are (default true for unix sockets, false for TCP)",
		func(s string) error {
			on, err := strconv.ParseBool(s)
			if err != nil {
				return errors.New("want true or false")
			}
			o.Reflection = &on
			return nil
		})
	floor := floorFlag(flags)
	logger := LogFlags(flags, stderr, &o.MaxLogLines)
	if err := Parse(flags, args, stdout, stderr); err != nil {
		return o, err
	}
	if o.MaxMemory = int(memory); o.MaxMemory == 0 {
		return o, Usagef("-max-memory is 0: want a size above zero, such as 128MiB")
	}
	if err := o.Validate(); err != nil {
		return o, &UsageError{err}
	}
	o.Logger = logger()
	limitMemory(o, *floor)
	setFloor(flags, *floor, o.Logger)
	return o, nil
}

func floorFlag(flags *flag.FlagSet) *heapfloor.Size {
	floor := heapfloor.Default
	flags.Var(&floor, "heap-floor",
		"`size` to which the heap may grow before garbage is collected, where that saves time; 0 means Go's default")
	return &floor
}

// setFloor sets the heap floor. It says that there can be none only to those who asked for one.
func setFloor(flags *flag.FlagSet, floor heapfloor.Size, log *slog.Logger) {
	_, err := heapfloor.Set(floor)
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "heap-floor" && err != nil {
			log.Warn("the heap floor is not used", "error", err)
		}
	})
}

// limitMemory lets Go collect garbage earlier than it would by GOGC when the process comes near to what its options
// allow it, unless GOMEMLIMIT says something else. What is in use is about half of that at most.
func limitMemory(o ttrpcx.ServerOptions, floor heapfloor.Size) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(16<<20 + int64(o.MaxMemory)/2*5 + int64(o.MaxConnections)*32<<10 + int64(floor))
	}
}

// Client has the values of a client's flags.
type Client struct {
	ttrpcx.ClientOptions
	metadata ttrpc.MD
	timeout  time.Duration
}

// ParseClient adds a client's flags to flags, parses args as Parse does, and returns the values. The logger is as
// ParseServer's.
func ParseClient(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (*Client, error) {
	c := new(Client)
	ClientFlags(flags, &c.ClientOptions)
	flags.BoolVar(&c.WaitForReady, "wait", false, "wait until there is a server, for at most -timeout")
	md := metadataFlag{MD: ttrpc.MD{"name": {"koye"}}}
	flags.Var(&md, "metadata", "`key=value` to send as metadata; repeatable, and \"\" sends none")
	flags.DurationVar(&c.timeout, "timeout", 5*time.Second, "`duration` that the connection and the call may take")
	floor := floorFlag(flags)
	format := logFlag(flags)
	if err := Parse(flags, args, stdout, stderr); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, &UsageError{err}
	}
	if c.timeout <= 0 {
		return nil, Usagef("-timeout is %v: want a duration above zero, such as 5s", c.timeout)
	}
	c.metadata = md.MD
	c.Logger = logger(format, stderr)
	setFloor(flags, *floor, c.Logger)
	return c, nil
}

// Context returns a context for the connection and the call. It has the metadata and the timeout of the flags.
func (c *Client) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ttrpc.WithMetadata(ctx, c.metadata), c.timeout)
}

// ClientFlags adds the flags for the address of the server and for the check of its identity.
func ClientFlags(flags *flag.FlagSet, o *ttrpcx.ClientOptions) {
	flags.StringVar(&o.Address, "address", ttrpcx.DefaultAddress(App),
		"`address` to connect to: unix:PATH, a path, unix-abstract:NAME, tcp://HOST:PORT, vsock://CID:PORT or "+
			"hvsock://PATH:PORT")
	AllowFlags(flags, &o.Allow, "may run the server")
	tlsFlags(flags, &o.TLS, &o.Insecure)
}

// AllowFlags adds the flags for the users that, beside root and oneself, do what the text says.
func AllowFlags(flags *flag.FlagSet, a *ttrpcx.Allow, what string) {
	flags.Var(idFlag{&a.UIDs, lookupUser}, "allow-uid",
		"`user` (name or number) that "+what+", in addition to root and you; repeatable")
	flags.Var(idFlag{&a.GIDs, lookupGroup}, "allow-gid",
		"`group` (name or number) whose members "+what+"; repeatable")
}

func tlsFlags(flags *flag.FlagSet, files *ttrpcx.TLSFiles, insecure *bool) {
	flags.StringVar(&files.Cert, "tls-cert", "", "PEM `file` with the certificate to show to the peer, for tcp://")
	flags.StringVar(&files.Key, "tls-key", "", "PEM `file` with the certificate's private key")
	flags.StringVar(&files.CA, "tls-ca", "", "PEM `file` with the certificate authorities of the peer")
	flags.BoolVar(insecure, "insecure", false,
		"allow tcp:// without TLS: anybody on the network can read and change calls")
}

// flagOf has the flag for each option that an error of ttrpcx can name.
var flagOf = map[string]string{
	"TLS.Cert": "-tls-cert", "TLS.Key": "-tls-key", "TLS.CA": "-tls-ca", "Insecure": "-insecure",
	"Allow.UIDs": "-allow-uid", "Allow.GIDs": "-allow-gid", "Allow.CIDs": "-allow-cid", "CallTimeout": "-call-timeout",
}

// Text returns the text of an error with the names of flags in place of the library's options.
func Text(err error) string {
	s := err.Error()
	if wrong, ok := errors.AsType[*ttrpcx.OptionError](err); ok {
		s = strings.Replace(s, wrong.Error(), wrong.Named(func(option string) string { return flagOf[option] }), 1)
	}
	return s
}

// LogFlags adds the flags for a server's log, which has *maxLines by default. It returns a function to be called after
// Parse that returns the logger. The logger writes to stderr, and does not wait for whoever reads that.
func LogFlags(flags *flag.FlagSet, stderr io.Writer, maxLines *int) func() *slog.Logger {
	flags.IntVar(maxLines, "max-log-lines", *maxLines,
		"`number` of lines with the same message and code that are logged in a minute; -1 means no limit")
	format := logFlag(flags)
	return func() *slog.Logger {
		if q, ok := stderr.(*logQueue); ok {
			q.start(func(lines int) []byte {
				var line bytes.Buffer
				newLogger(*format, &line).Warn("log lines were lost, because nobody read them", "lines", lines)
				return line.Bytes()
			})
		}
		return ttrpcx.ServerOptions{Logger: logger(format, stderr), MaxLogLines: *maxLines}.WithDefaults().Logger
	}
}

// logFlag adds -log-format. Its value is "text" for people (the default) or "json" for programs.
func logFlag(flags *flag.FlagSet) *string {
	format := "text"
	ChoiceVar(flags, &format, "log-format", []string{"text", "json"}, "`format` of the log on standard error")
	return &format
}

// logger returns a logger that writes lines in the format to w. It also sends ttrpc's own log lines there.
func logger(format *string, w io.Writer) *slog.Logger {
	log := newLogger(*format, w)
	interceptor.ContainerdLog(log)
	return log
}

func newLogger(format string, w io.Writer) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(jsonWriter{w}, nil))
	}
	return slog.New(newTextHandler(w))
}

// PositiveIntVar adds a flag for a whole number above zero.
func PositiveIntVar(flags *flag.FlagSet, n *int, name string, byDefault int, usage string) {
	*n = byDefault
	flags.Var((*positiveInt)(n), name, usage)
}

// PositiveDurationVar adds a flag for a duration above zero.
func PositiveDurationVar(flags *flag.FlagSet, d *time.Duration, name string, byDefault time.Duration, usage string) {
	*d = byDefault
	flags.Var((*positiveDuration)(d), name, usage)
}

// positiveInt is a flag that takes whole numbers above zero.
type positiveInt int

func (n *positiveInt) String() string { return strconv.Itoa(int(*n)) }

func (n *positiveInt) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v <= 0 {
		return errors.New("want a whole number above zero")
	}
	*n = positiveInt(v)
	return nil
}

// positiveDuration is a flag that takes durations above zero.
type positiveDuration time.Duration

func (d *positiveDuration) String() string { return time.Duration(*d).String() }

func (d *positiveDuration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("want a duration above zero, such as 30s")
	}
	*d = positiveDuration(v)
	return nil
}
