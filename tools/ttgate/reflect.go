package main

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The gate answers reflection from the schema of the server, as it is now. What the gate itself has, health and
// reflection, is linked into it.

// GetServiceInfo lists the services.
func (b *backend) GetServiceInfo() map[string]grpc.ServiceInfo {
	info := map[string]grpc.ServiceInfo{
		"grpc.health.v1.Health": {}, "grpc.reflection.v1.ServerReflection": {},
		"grpc.reflection.v1alpha.ServerReflection": {},
	}
	for _, service := range b.files().services {
		info[string(service.FullName())] = grpc.ServiceInfo{}
	}
	return info
}

// files returns the server's schema, which is empty while the server is down.
func (b *backend) files() *schema {
	if l := b.up.Load(); l != nil {
		return l.schema
	}
	return &schema{files: new(protoregistry.Files)}
}

// FindFileByPath returns a file.
func (b *backend) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := b.files().files.FindFileByPath(path); err == nil {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName returns what has the full name.
func (b *backend) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := b.files().files.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// FindExtensionByName returns an extension by its full name.
func (b *backend) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return dynamicpb.NewTypes(b.files().files).FindExtensionByName(name)
}

// FindExtensionByNumber returns an extension by its number.
func (b *backend) FindExtensionByNumber(
	message protoreflect.FullName, number protoreflect.FieldNumber,
) (protoreflect.ExtensionType, error) {
	return dynamicpb.NewTypes(b.files().files).FindExtensionByNumber(message, number)
}

// RangeExtensionsByMessage calls f for each extension of a message.
func (b *backend) RangeExtensionsByMessage(
	message protoreflect.FullName, f func(protoreflect.ExtensionType) bool,
) {
	rangeExtensions(b.files().files, func(d protoreflect.ExtensionDescriptor) bool {
		return d.ContainingMessage().FullName() != message || f(dynamicpb.NewExtensionType(d))
	})
}

// rangeExtensions calls f for each extension that is declared in files.
func rangeExtensions(files *protoregistry.Files, f func(protoreflect.ExtensionDescriptor) bool) {
	type scope interface {
		Extensions() protoreflect.ExtensionDescriptors
		Messages() protoreflect.MessageDescriptors
	}
	var in func(s scope) bool
	in = func(s scope) bool {
		for i := range s.Extensions().Len() {
			if !f(s.Extensions().Get(i)) {
				return false
			}
		}
		for i := range s.Messages().Len() {
			if !in(s.Messages().Get(i)) {
				return false
			}
		}
		return true
	}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool { return in(file) })
}
