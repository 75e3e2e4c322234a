package main

import (
	"context"
	"embed"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fullstorydev/grpcurl"
	"github.com/google/shlex"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"example.com/ttrpc-starter/internal/cli"
)

//go:embed completion
var completions embed.FS

var shells = []string{"bash", "zsh", "fish"}

// completeCommand is how the shells' scripts ask: with -line LINE for a whole command line, or with the words of one.
const completeCommand = "__complete"

// completionTime is how long a server may take to say what it has, once somebody has pressed the tab key.
const completionTime = 2 * time.Second

func completionScript(out io.Writer, shell string) error {
	if !slices.Contains(shells, shell) {
		return cli.Usagef("completion for %q: want one of %s", shell, strings.Join(shells, ", "))
	}
	script, err := completions.ReadFile("completion/ttcurl." + shell)
	if err != nil {
		return err
	}
	_, err = out.Write(script)
	return err
}

// complete prints what the last word may become, a line for each. If it prints nothing, the shell names files. Errors
// do not matter here.
func complete(ctx context.Context, words []string, out io.Writer) error {
	if len(words) == 2 && words[0] == "-line" {
		line := words[1]
		var err error
		if words, err = shlex.Split(line); err != nil || len(words) == 0 {
			return nil
		}
		if words = words[1:]; strings.HasSuffix(line, " ") || len(words) == 0 {
			words = append(words, "")
		}
	}
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	for _, c := range candidates(ctx, words[:len(words)-1], last) {
		if strings.HasPrefix(c, last) {
			if _, err := fmt.Fprintln(out, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func candidates(ctx context.Context, before []string, last string) []string {
	o := new(options)
	flags := o.flagSet()
	if n := len(before); n > 0 {
		if name, ok := strings.CutPrefix(before[n-1], "-"); ok {
			if f := flags.Lookup(strings.TrimPrefix(name, "-")); f != nil && !isBool(f) {
				if f.Name == "format" {
					return []string{"json", "text"}
				}
				return nil
			}
		}
	}
	if strings.HasPrefix(last, "-") {
		var names []string
		flags.VisitAll(func(f *flag.Flag) { names = append(names, "-"+f.Name) })
		return names
	}
	const word = "?" // in place of the one that is being written
	if err := o.parse(flags, append(slices.Clone(before), word)); err != nil {
		return nil
	}
	switch {
	case o.verb == verbCompletion:
		return shells
	case o.verb == verbList, o.verb == verbDescribe:
		return o.symbolsInTime(ctx)
	case o.symbol != word: // with -ui, it is an address
		return nil
	case o.addressGiven:
		return append([]string{verbList, verbDescribe}, o.symbolsInTime(ctx)...)
	case isAddress(last):
		return nil
	}
	return append(slices.Clone(verbs), o.symbolsInTime(ctx)...)
}

// symbolsInTime returns what symbols returns, or nothing after completionTime: a file of the schema may be a pipe,
// which has no deadline.
func (o *options) symbolsInTime(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	found := make(chan []string, 1)
	go func() { found <- o.symbols(ctx) }()
	select {
	case symbols := <-found:
		return symbols
	case <-ctx.Done():
		return nil
	}
}

// symbols returns the services for list, all that has a name of its own for describe, and else the methods.
func (o *options) symbols(ctx context.Context) []string {
	ctx = metadata.NewOutgoingContext(ctx, grpcurl.MetadataFromHeaders(o.headers))
	schema, err := o.schema(ctx, newServer(o))
	if err != nil {
		return nil
	}
	services, err := schema.ListServices()
	if err != nil || o.verb == verbList {
		return services
	}
	var symbols []string
	for _, name := range services {
		d, err := schema.FindSymbol(name)
		service, ok := d.(*desc.ServiceDescriptor)
		if err != nil || !ok {
			continue
		}
		for _, m := range service.GetMethods() {
			symbols = append(symbols, name+"/"+m.GetName())
		}
		if o.verb == verbDescribe {
			symbols = append(symbols, name)
			symbols = appendFile(symbols, service.GetFile().UnwrapFile())
		}
	}
	slices.Sort(symbols)
	return slices.Compact(symbols) // services may share files
}

// appendFile appends the names of the messages and enums that the file has or imports.
func appendFile(names []string, file protoreflect.FileDescriptor) []string {
	names = appendTypes(names, file)
	for i := range file.Imports().Len() {
		names = appendTypes(names, file.Imports().Get(i))
	}
	return names
}

// appendTypes appends the names of the messages and enums in a file or a message.
func appendTypes(names []string, in interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
},
) []string {
	for i := range in.Enums().Len() {
		names = append(names, string(in.Enums().Get(i).FullName()))
	}
	for i := range in.Messages().Len() {
		if m := in.Messages().Get(i); !m.IsMapEntry() {
			names = appendTypes(append(names, string(m.FullName())), m)
		}
	}
	return names
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}
