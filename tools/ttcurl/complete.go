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
	cut := 0
	if len(words) == 2 && words[0] == "-line" {
		line := words[1]
		var err error
		if words, err = shlex.Split(line); err != nil || len(words) == 0 {
			return nil
		}
		if words = words[1:]; strings.HasSuffix(line, " ") || len(words) == 0 {
			words = append(words, "")
		}
		// What bash replaces begins after the last of these: COMP_WORDBREAKS in bash(1).
		cut = strings.LastIndexAny(words[len(words)-1], ":=") + 1
	}
	if len(words) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	last := words[len(words)-1]
	for _, c := range candidates(ctx, words[:len(words)-1], last) {
		if strings.HasPrefix(c, last) {
			if _, err := fmt.Fprintln(out, c[cut:]); err != nil {
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
		return o.symbols(ctx)
	case o.addressGiven:
		return append([]string{verbList, verbDescribe}, o.symbols(ctx)...)
	case isAddress(last):
		return nil
	}
	return append(slices.Concat(verbs, []string{"help", "version"}), o.symbols(ctx)...)
}

// symbols returns the services for list, all that has a name for describe, and else the methods.
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
		if o.verb == verbDescribe {
			symbols = addTypes(append(symbols, name), service.GetFile(), map[string]bool{})
		}
		for _, m := range service.GetMethods() {
			symbols = append(symbols, name+"/"+m.GetName())
		}
	}
	slices.Sort(symbols)
	return slices.Compact(symbols)
}

// addTypes adds the messages and enums of a file and of those that it imports, except for protobuf's own.
func addTypes(symbols []string, file *desc.FileDescriptor, seen map[string]bool) []string {
	if seen[file.GetName()] || file.GetPackage() == "google.protobuf" {
		return symbols
	}
	seen[file.GetName()] = true
	var add func(messages []*desc.MessageDescriptor, enums []*desc.EnumDescriptor)
	add = func(messages []*desc.MessageDescriptor, enums []*desc.EnumDescriptor) {
		for _, e := range enums {
			symbols = append(symbols, e.GetFullyQualifiedName())
		}
		for _, m := range messages {
			if !m.IsMapEntry() {
				symbols = append(symbols, m.GetFullyQualifiedName())
				add(m.GetNestedMessageTypes(), m.GetNestedEnumTypes())
			}
		}
	}
	add(file.GetMessageTypes(), file.GetEnumTypes())
	for _, imported := range file.GetDependencies() {
		symbols = addTypes(symbols, imported, seen)
	}
	return symbols
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}
