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
	files, reflected grpcurl.DescriptorSource // where it comes from; nil or both
}

func (o *options) schema(ctx context.Context, s *server) (*schema, error) {
	files, err := o.localSource()
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	if files != nil && (o.reflection == nil || !*o.reflection) {
		return &schema{files, files, nil}, nil
	}
	reflected, err := s.reflection(ctx)
	var silent unanswered
	switch {
	case files == nil && err != nil:
		return nil, err
	case files == nil:
		return &schema{reflected, nil, reflected}, nil
	case errors.Is(err, errNoReflection), errors.As(err, &silent):
		return &schema{files, files, nil}, nil
	case err != nil:
		return nil, err
	}
	return &schema{both{reflected, files}, files, reflected}, nil
}

// both is the server's schema, and what only the files have, as with grpcurl.
type both struct{ reflected, files grpcurl.DescriptorSource }

func (b both) ListServices() ([]string, error) { return b.reflected.ListServices() }

func (b both) FindSymbol(name string) (desc.Descriptor, error) {
	if d, err := b.reflected.FindSymbol(name); err == nil {
		return d, nil
	}
	return b.files.FindSymbol(name)
}

func (b both) AllExtensionsForType(name string) ([]*desc.FieldDescriptor, error) {
	theirs, err := b.reflected.AllExtensionsForType(name)
	ours, filesErr := b.files.AllExtensionsForType(name)
	if filesErr != nil {
		return theirs, err
	}
	return append(theirs, ours...), nil // the first of a number counts
}

// ListServices returns the services in one order, whichever the source has.
func (s *schema) ListServices() ([]string, error) {
	names, err := s.DescriptorSource.ListServices()
	return slices.Sorted(slices.Values(names)), err
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
