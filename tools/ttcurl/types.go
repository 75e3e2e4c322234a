package main

import (
	"strings"
	"sync"

	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// types resolves the messages in an Any and extensions: those of the schema, and else those that ttcurl has itself.
type types struct {
	schema *schema

	mu         sync.Mutex
	messages   map[protoreflect.FullName]protoreflect.MessageType // nil for one that there is not
	extensions map[protoreflect.FullName][]protoreflect.ExtensionType
}

func newTypes(s *schema) *types {
	return &types{
		schema:     s,
		messages:   make(map[protoreflect.FullName]protoreflect.MessageType),
		extensions: make(map[protoreflect.FullName][]protoreflect.ExtensionType),
	}
}

// FindMessageByName is called by protobuf, as are the other methods.
func (t *types) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, known := t.messages[name]
	if !known {
		if d, err := t.schema.FindSymbol(string(name)); err == nil {
			if d, ok := d.(*desc.MessageDescriptor); ok {
				m = dynamicpb.NewMessageType(d.UnwrapMessage())
			}
		}
		if m == nil {
			m, _ = protoregistry.GlobalTypes.FindMessageByName(name)
		}
		t.messages[name] = m
	}
	if m == nil {
		return nil, protoregistry.NotFound
	}
	return m, nil
}

// FindMessageByURL finds the message of an Any.
func (t *types) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	return t.FindMessageByName(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// FindExtensionByName finds an extension that JSON or text has in brackets.
func (t *types) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if d, err := t.schema.FindSymbol(string(name)); err == nil {
		if d, ok := d.(*desc.FieldDescriptor); ok && d.IsExtension() {
			return dynamicpb.NewExtensionType(d.UnwrapField()), nil
		}
	}
	return protoregistry.GlobalTypes.FindExtensionByName(name)
}

// FindExtensionByNumber finds an extension in an encoded message.
func (t *types) FindExtensionByNumber(
	message protoreflect.FullName, number protoreflect.FieldNumber,
) (protoreflect.ExtensionType, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, known := t.extensions[message]
	if !known {
		fields, _ := t.schema.AllExtensionsForType(string(message)) // without them, the field stays unknown
		for _, f := range fields {
			all = append(all, dynamicpb.NewExtensionType(f.UnwrapField()))
		}
		t.extensions[message] = all
	}
	for _, x := range all {
		if x.TypeDescriptor().Number() == number {
			return x, nil
		}
	}
	return protoregistry.GlobalTypes.FindExtensionByNumber(message, number)
}
