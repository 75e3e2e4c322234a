package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
)

// schema knows services, methods and messages.
type schema struct {
	grpcurl.DescriptorSource
	fromServer bool
	close      func()
}

func (o *options) schema(ctx context.Context, s *server) (*schema, error) {
	source, err := o.localSource()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the schema: %w", err)
	case source != nil:
		return &schema{source, false, func() {}}, nil
	}
	return s.reflection(ctx)
}

// localSource returns the source that the flags name, or nil.
func (o *options) localSource() (grpcurl.DescriptorSource, error) {
	switch {
	case len(o.protos) > 0:
		return grpcurl.DescriptorSourceFromProtoFiles(o.imports, o.protos...)
	case len(o.protosets) > 0:
		return grpcurl.DescriptorSourceFromProtoSets(o.protosets...)
	case o.buf != "":
		return bufSource(o.buf)
	}
	return nil, nil
}

// method finds SERVICE/METHOD or SERVICE.METHOD.
func (s *schema) method(name string) (*desc.MethodDescriptor, error) {
	name = strings.TrimPrefix(name, "/")
	i := strings.LastIndexAny(name, "/")
	if i < 0 {
		i = strings.LastIndex(name, ".")
	}
	if i <= 0 || i == len(name)-1 {
		return nil, fmt.Errorf("%q is no method: want SERVICE/METHOD", name)
	}
	service, method := name[:i], name[i+1:]
	d, err := s.FindSymbol(service)
	sd, ok := d.(*desc.ServiceDescriptor)
	if err != nil && !notFound(err) {
		return nil, err
	}
	if err != nil || !ok {
		names, _ := s.ListServices()
		return nil, fmt.Errorf("unknown service %q%s", service, nearest(service, names))
	}
	md := sd.FindMethodByName(method)
	if md == nil {
		var names []string
		for _, m := range sd.GetMethods() {
			names = append(names, m.GetName())
		}
		return nil, fmt.Errorf("service %s has no method %q%s", service, method, nearest(method, names))
	}
	return md, nil
}

// nearest returns the names that may have been meant, for the end of a message, or all if they are few.
func nearest(name string, names []string) string {
	distance := func(other string) int {
		return levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(other))
	}
	slices.SortStableFunc(names, func(a, b string) int { return distance(a) - distance(b) })
	near := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return distance(n) > 1+len(name)/3 })
	const few = 5
	switch {
	case len(names) == 0:
		return ": the schema has none"
	case len(near) > 0:
		return ": did you mean " + strings.Join(near[:min(few, len(near))], ", ") + "?"
	case len(names) <= few:
		return ": there are " + strings.Join(names, ", ")
	}
	return ": list shows what there is"
}

// write writes the files that symbols need to where the flags say.
func (s *schema) write(o *options, symbols ...string) error {
	if o.protosetOut != "" {
		f, err := os.Create(o.protosetOut)
		if err != nil {
			return err
		}
		err = errors.Join(grpcurl.WriteProtoset(f, s, symbols...), f.Close())
		if err != nil {
			return fmt.Errorf("write %s: %w", o.protosetOut, err)
		}
	}
	if o.protoOutDir != "" {
		if err := grpcurl.WriteProtoFiles(filepath.Clean(o.protoOutDir), s, symbols...); err != nil {
			return fmt.Errorf("write to %s: %w", o.protoOutDir, err)
		}
	}
	return nil
}
