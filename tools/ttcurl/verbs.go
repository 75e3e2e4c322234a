package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
)

// list prints the services, or the methods of one.
func list(o *options, s *schema, out io.Writer) error {
	var names []string
	var err error
	symbols := []string{o.symbol}
	if o.symbol == "" {
		names, err = grpcurl.ListServices(s)
		symbols = names
	} else {
		names, err = grpcurl.ListMethods(s, o.symbol)
		if err != nil && notFound(err) {
			services, _ := s.ListServices()
			err = fmt.Errorf("unknown service %q%s", o.symbol, nearest(o.symbol, services))
		}
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(out, name); err != nil {
			return err
		}
	}
	return s.write(o, symbols...)
}

// describe prints symbols as in a .proto file: one, or all services.
func describe(o *options, s *schema, out io.Writer) error {
	symbols := []string{strings.TrimPrefix(o.symbol, ".")}
	if o.symbol == "" {
		var err error
		if symbols, err = s.ListServices(); err != nil {
			return err
		}
	}
	for i, symbol := range symbols {
		d, err := s.find(symbol)
		if err != nil {
			return err
		}
		symbols[i] = d.GetFullyQualifiedName()
		text, err := grpcurl.GetDescriptorText(d, s)
		if err != nil {
			return fmt.Errorf("describe %s: %w", symbol, err)
		}
		if _, err := fmt.Fprintf(out, "%s is %s:\n%s\n", d.GetFullyQualifiedName(), what(d), text); err != nil {
			return err
		}
		if m, ok := d.(*desc.MessageDescriptor); ok && o.msgTemplate {
			_, format, err := grpcurl.RequestParserAndFormatter(grpcurl.Format(o.format), s, nil,
				grpcurl.FormatOptions{EmitJSONDefaultFields: true})
			if err != nil {
				return err
			}
			text, err := format(grpcurl.MakeTemplate(m))
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(out, "\nMessage template:\n%s\n", text); err != nil {
				return err
			}
		}
	}
	return s.write(o, symbols...)
}

// find finds a symbol by its full name, or a method by SERVICE/METHOD.
func (s *schema) find(symbol string) (desc.Descriptor, error) {
	if strings.Contains(symbol, "/") {
		return s.method(symbol)
	}
	d, err := s.FindSymbol(symbol)
	if err != nil && notFound(err) {
		names, _ := s.ListServices()
		return nil, fmt.Errorf("unknown symbol %q%s", symbol, nearest(symbol, names))
	}
	return d, err
}

// what names the kind of a symbol, in grpcurl's words.
func what(d desc.Descriptor) string {
	switch d := d.(type) {
	case *desc.MessageDescriptor:
		return "a message"
	case *desc.FieldDescriptor:
		if d.IsExtension() {
			return "an extension"
		}
		return "a field"
	case *desc.OneOfDescriptor:
		return "a one-of"
	case *desc.EnumDescriptor:
		return "an enum"
	case *desc.EnumValueDescriptor:
		return "an enum value"
	case *desc.ServiceDescriptor:
		return "a service"
	case *desc.MethodDescriptor:
		return "a method"
	}
	return "a file"
}
