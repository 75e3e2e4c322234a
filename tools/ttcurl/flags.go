package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fullstorydev/grpcurl"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
)

const (
	verbList       = "list"
	verbDescribe   = "describe"
	verbCompletion = "completion"
)

var verbs = []string{verbList, verbDescribe, verbCompletion}

const usage = `Calls methods of ttrpc servers, and lists and describes what they offer.

Usage: ttcurl [flags] [ADDRESS] SERVICE/METHOD
       ttcurl [flags] [ADDRESS] list [SERVICE]
       ttcurl [flags] [ADDRESS] describe [SYMBOL]
       ttcurl [flags] -ui [ADDRESS]
       ttcurl completion bash|zsh|fish

ADDRESS is unix:PATH, a path, unix-abstract:NAME, tcp://HOST:PORT, vsock://CID:PORT
or hvsock://PATH:PORT; by default
%s
Flags may stand anywhere. They mean what they mean to grpcurl where it has them.

`

const exitCodes = `
Exit codes: 0 success or help, 1 failure, 2 usage, 64+code a call that failed with that RPC status code
(65: cancelled, also by Ctrl-C; 66: also for a code that gRPC does not have).
`

// options is the command line.
type options struct {
	address, verb, symbol string // symbol is the method if there is no verb
	addressGiven          bool

	data                       string
	headers                    repeated
	protos, imports, protosets repeated
	buf                        string
	reflection                 *bool // nil finds out whether the server has it
	protosetOut, protoOutDir   string
	format                     string
	emitDefaults               bool
	allowUnknownFields         bool
	formatError                bool
	msgTemplate                bool
	maxTime, connectTimeout    float64 // in seconds
	verbose, veryVerbose       bool
	plaintext, insecure        bool
	cacert, cert, key          string
	allow                      ttrpcx.ClientOptions // only Allow is used
	out                        string
	json                       bool
	expandHeaders              bool
	serverName                 string
	maxMessages                int
	ui                         bool
	command                    []string // what begins the command lines that -ui shows
	version                    bool
}

func (o *options) flagSet() *flag.FlagSet {
	flags := flag.NewFlagSet("ttcurl", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // parse reports, once, to the right place
	flags.Usage = func() {}

	flags.StringVar(&o.data, "d", "",
		"request `data`; @ reads standard input and @FILE a file. Messages of a stream follow one after the other")
	flags.Var(&o.headers, "H",
		"metadata to send, as `'name: value'`; repeatable. With a name that ends in -bin, the value is base64")
	flags.BoolVar(&o.expandHeaders, "expand-headers", false, "put environment variables in place of ${NAME} in -H")
	flags.Var(&o.protos, "proto", "take the schema from this .proto `file`; repeatable")
	flags.Var(&o.imports, "import-path", "`directory` to look for -proto files and their imports in; repeatable")
	flags.Var(&o.protosets, "protoset", "take the schema from this `file`, an encoded FileDescriptorSet; repeatable")
	flags.StringVar(&o.buf, "buf", "",
		"take the schema from a buf module, workspace or image at this `path`: a directory or a file")
	flags.BoolFunc("use-reflection",
		"take the schema from the server, and only what it lacks from -proto, -protoset or -buf. Without this flag, "+
			"those are the schema, and the server is only asked about methods that take a stream; false asks nothing",
		o.useReflection)
	flags.StringVar(&o.protosetOut, "protoset-out", "",
		"write what is listed, described or called to this `file`, as a FileDescriptorSet")
	flags.StringVar(&o.protoOutDir, "proto-out-dir", "",
		"write what is listed, described or called to this `directory`, as .proto files")
	flags.StringVar(&o.format, "format", "json",
		"`format` of messages: json, or text with the byte 0x1E between messages")
	flags.BoolVar(&o.emitDefaults, "emit-defaults", false, "print fields that have their default value, too (json)")
	flags.BoolVar(&o.allowUnknownFields, "allow-unknown-fields", false,
		"ignore what the schema does not have in requests (json)")
	flags.BoolVar(&o.formatError, "format-error", false, "print a failed call's status in the format of -format")
	flags.BoolVar(&o.msgTemplate, "msg-template", false, "describe messages with an example of input")
	flags.Float64Var(&o.maxTime, "max-time", 0,
		"`seconds` that all may take; the server is told, too (default: no limit)")
	flags.Float64Var(&o.connectTimeout, "connect-timeout", 10,
		"`seconds` that connecting, and the first answer about the schema, may take")
	flags.BoolVar(&o.verbose, "v", false, "tell on standard error what is done")
	flags.BoolVar(&o.veryVerbose, "vv", false, "tell sizes and times as well")
	flags.BoolVar(&o.plaintext, "plaintext", false,
		"no TLS for tcp://: anyone on the way can read and change it. Programs of the starter call this -insecure")
	flags.BoolVar(&o.insecure, "insecure", false, "TLS for tcp://, without a check of the server's identity")
	flags.StringVar(&o.cacert, "cacert", "",
		"PEM `file` with the certificates that the server's must go back to (default: the system's)")
	flags.StringVar(&o.cert, "cert", "", "PEM `file` with a certificate to show to the server")
	flags.StringVar(&o.key, "key", "", "PEM `file` with its private key")
	flags.StringVar(&o.serverName, "servername", "",
		"`name` that the server's certificate must be for (default: the host of the address)")
	flags.StringVar(&o.out, "o", "", "write what would go to standard output to this `file`, in place of what it has")
	flags.BoolVar(&o.json, "json", false,
		"print one JSON object for the call, also if it fails: method, messages, status, details, timing")
	flags.IntVar(&o.maxMessages, "max-messages", 0,
		"stop after this `number` of messages, as a success (default: no limit; with -ui 1000)")
	flags.BoolVar(&o.ui, "ui", false, "serve a web form for calls on 127.0.0.1 and print its URL, until Ctrl-C")
	flags.BoolVar(&o.version, "version", false, "print the version")

	// The flags that say which users' servers are allowed are those of every client here.
	others := flag.NewFlagSet("", flag.ContinueOnError)
	cli.ClientFlags(others, &o.allow)
	for _, name := range []string{"allow-uid", "allow-gid"} {
		f := others.Lookup(name)
		flags.Var(f.Value, f.Name, f.Usage)
	}
	return flags
}

func (o *options) useReflection(s string) error {
	use, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true or false")
	}
	o.reflection = &use
	return nil
}

// parse reads the command line. Help that was asked for goes to stdout, with flag.ErrHelp as the error.
func parse(args []string, stdout, stderr io.Writer) (*options, error) {
	o := new(options)
	flags := o.flagSet()
	err := o.parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(stdout)
		fmt.Fprintf(stdout, usage, ttrpcx.DefaultAddress(cli.App))
		flags.PrintDefaults()
		fmt.Fprint(stdout, exitCodes)
		return nil, err
	}
	if err == nil && !o.version {
		err = o.validate(stderr)
	}
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	return o, nil
}

// parse takes flags and arguments in any order; after "--" there are only arguments.
func (o *options) parse(flags *flag.FlagSet, args []string) error {
	var words []string
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return err
		}
		rest := flags.Args()
		if used := len(args) - len(rest); used > 0 && args[used-1] == "--" || len(rest) == 0 {
			words = append(words, rest...)
			break
		}
		words, args = append(words, rest[0]), rest[1:]
	}
	o.address = ttrpcx.DefaultAddress(cli.App)
	if o.ui {
		return o.pageWords(words, flags)
	}
	return o.words(words)
}

// words takes the arguments that are no flags: [ADDRESS] METHOD, [ADDRESS] VERB [SYMBOL].
func (o *options) words(words []string) error {
	if len(words) == 1 && (words[0] == "help" || words[0] == "version") {
		o.version = words[0] == "version"
		if !o.version {
			return flag.ErrHelp
		}
		return nil
	}
	if len(words) > 1 && !slices.Contains(verbs, words[0]) {
		o.address, o.addressGiven, words = words[0], true, words[1:]
	}
	if len(words) > 0 && slices.Contains(verbs, words[0]) {
		o.verb, words = words[0], words[1:]
	}
	switch {
	case len(words) > 1:
		return fmt.Errorf("unexpected argument %q", words[1])
	case len(words) == 1:
		o.symbol = words[0]
	case o.verb == "" && !o.version:
		return errors.New("nothing to do: want SERVICE/METHOD, list or describe")
	}
	if o.verb == "" && !o.addressGiven && isAddress(o.symbol) {
		return fmt.Errorf("nothing to do at %s: add SERVICE/METHOD, list or describe",
			cmp.Or(tcpAddress(o.symbol), o.symbol))
	}
	return nil
}

// isAddress reports whether a word can only be an address. SERVICE/METHOD may have a slash before it.
func isAddress(word string) bool {
	if strings.HasPrefix(word, ".") || strings.Contains(word, ":") || strings.HasSuffix(word, ".sock") {
		return true
	}
	info, err := os.Stat(word)
	return err == nil && info.Mode().Type() == fs.ModeSocket || strings.Count(word, "/") > 1
}

// tcpAddress returns what was meant by host:port; "" for other addresses.
func tcpAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || strings.ContainsAny(host, `/\`) {
		return ""
	}
	if slices.Contains([]string{"unix", "unix-abstract", "tcp", "vsock", "hvsock", "systemd"}, host) {
		return ""
	}
	return "tcp://" + address
}

func (o *options) validate(stderr io.Writer) error {
	if o.verb == verbCompletion {
		return nil
	}
	var schemas []string
	for flag, given := range map[string]bool{
		"-proto": len(o.protos) > 0, "-protoset": len(o.protosets) > 0, "-buf": o.buf != "",
	} {
		if given {
			schemas = append(schemas, flag)
		}
	}
	slices.Sort(schemas)
	switch tls := o.insecure || o.cacert != "" || o.cert != "" || o.key != "" || o.serverName != ""; {
	case len(schemas) > 1:
		return fmt.Errorf("the schema comes from one place: give one of %s", strings.Join(schemas, ", "))
	case len(schemas) == 0 && o.reflection != nil && !*o.reflection:
		return errors.New("without reflection a schema is needed: give -proto, -protoset or -buf")
	case len(o.imports) > 0 && len(o.protos) == 0:
		return errors.New("-import-path is for -proto: name a file, too")
	case o.format != "json" && o.format != "text":
		return fmt.Errorf("-format is %q: want json or text", o.format)
	case o.json && o.format != "json":
		return errors.New("-json prints JSON: -format text does not go with it")
	case o.json && o.verb != "":
		return fmt.Errorf("-json is for calls: %s does not take it", o.verb)
	case o.maxTime < 0:
		return fmt.Errorf("-max-time is %v: want a number of seconds above zero", o.maxTime)
	case o.connectTimeout <= 0:
		return fmt.Errorf("-connect-timeout is %v: want a number of seconds above zero", o.connectTimeout)
	case o.maxMessages < 0:
		return fmt.Errorf("-max-messages is %d: want a number above zero", o.maxMessages)
	case (o.cert == "") != (o.key == ""):
		return errors.New("-cert and -key must be given together")
	case o.plaintext && tls:
		return errors.New(
			"-plaintext turns off the TLS that -insecure, -cacert, -cert, -key and -servername are for: " +
				"give one or the other")
	case tcpAddress(o.address) != "":
		return fmt.Errorf("address %q: did you mean %s?", o.address, tcpAddress(o.address))
	case tls && !strings.HasPrefix(o.address, "tcp:"):
		return fmt.Errorf("address %q: TLS flags are for tcp://", o.address)
	}
	if o.expandHeaders {
		var err error
		if o.headers, err = grpcurl.ExpandHeaders(o.headers); err != nil {
			return err
		}
	}
	for _, h := range o.headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("-H is %q: want 'name: value'", h)
		}
	}
	if _, err := ttrpcx.ParseAddress(o.address); err != nil {
		return err
	}
	if o.verb != "" && o.data != "" {
		fmt.Fprintf(stderr, "ttcurl: warning: -d is for calls: %s does not use it\n", o.verb)
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(min(s, 1e9) * float64(time.Second)) }

// repeated is a flag that may be repeated.
type repeated []string

func (l *repeated) String() string     { return strings.Join(*l, ",") }
func (l *repeated) Set(s string) error { *l = append(*l, s); return nil }
