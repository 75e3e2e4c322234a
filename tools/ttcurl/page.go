package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/tools/internal/ui"
)

// pageFlags go with -ui. For the other flags, the page has fields, or they do not apply to it.
var pageFlags = []string{
	"H", "allow-gid", "allow-uid", "buf", "cacert", "cert", "connect-timeout", "emit-defaults", "expand-headers",
	"import-path", "insecure", "key", "max-messages", "plaintext", "proto", "protoset", "servername", "ui",
	"use-reflection", "version",
}

// pageOnly are those that its commands do without: the form has what -H gives, and -max-messages means something else.
var pageOnly = []string{"H", "expand-headers", "max-messages", "ui"}

// pageWords takes the arguments of -ui: [ADDRESS].
func (o *options) pageWords(words []string, flags *flag.FlagSet) error {
	if len(words) > 1 {
		return fmt.Errorf("unexpected argument %q: the page of -ui lists, describes and calls", words[1])
	}
	o.command = []string{"ttcurl"}
	var err error
	flags.Visit(func(f *flag.Flag) {
		switch {
		case !slices.Contains(pageFlags, f.Name):
			err = fmt.Errorf("-%s does not go with -ui: the page does without, or has a field for it", f.Name)
		case !slices.Contains(pageOnly, f.Name):
			for _, value := range o.values(f) {
				o.command = append(o.command, fmt.Sprintf("-%s=%s", f.Name, value))
			}
		}
	})
	if len(words) == 1 {
		o.address, o.addressGiven = words[0], true
		o.command = append(o.command, o.address)
	}
	return err
}

// values are those that a flag was given.
func (o *options) values(f *flag.Flag) []string {
	switch list, ok := f.Value.(*repeated); {
	case ok:
		return *list
	case f.Name == "use-reflection": // as a function, it has no value to print
		return []string{strconv.FormatBool(*o.reflection)}
	case strings.HasPrefix(f.Name, "allow-"):
		return strings.Split(f.Value.String(), ",")
	}
	return []string{f.Value.String()}
}

// page serves the web form until ctx ends.
func page(ctx context.Context, o *options, server *server, schema *schema, stdout, stderr io.Writer) error {
	return ui.Serve(ctx, ui.Options{
		Conn:         &checked{server, schema, stderr},
		Source:       schema,
		Target:       o.address,
		Command:      o.command,
		Metadata:     o.headers,
		EmitDefaults: o.emitDefaults,
		MaxMessages:  o.maxMessages,
	}, stdout)
}

// checked makes no call of which the server says that it is of another kind.
type checked struct {
	*server
	schema *schema
	stderr io.Writer
}

func (c *checked) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := c.check(ctx, method); err != nil {
		return err
	}
	return c.server.Invoke(ctx, method, args, reply, opts...)
}

func (c *checked) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if err := c.check(ctx, method); err != nil {
		return nil, err
	}
	return c.server.NewStream(ctx, desc, method, opts...)
}

func (c *checked) check(ctx context.Context, name string) error {
	var warning string
	method, err := c.schema.method(name)
	if err == nil {
		warning, err = c.checkKind(ctx, c.schema, method)
	}
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	if warning != "" {
		fmt.Fprintln(c.stderr, "ttcurl: warning:", warning)
	}
	return nil
}
