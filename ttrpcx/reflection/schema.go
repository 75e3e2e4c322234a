package reflection

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// This file has the declarations of reflection.proto, because clients can ask for that file, too. It is not generated.
// Generated code would register the names, as google.golang.org/grpc/reflection does, and a program with both would
// panic at its start.

const (
	service = "ServerReflection"
	method  = "ServerReflectionInfo"
)

type messageSchema struct {
	name   string
	oneof  string
	fields []fieldSchema
}

type fieldSchema struct {
	name        string
	number      int32
	kind        string // string, bytes, int32, or a message
	cardinality cardinality
}

type cardinality int

const (
	singular cardinality = iota
	repeated
	inOneof // a member of the message's oneof
)

var kinds = map[string]descriptorpb.FieldDescriptorProto_Type{
	"string": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	"bytes":  descriptorpb.FieldDescriptorProto_TYPE_BYTES,
	"int32":  descriptorpb.FieldDescriptorProto_TYPE_INT32,
}

var messages = []messageSchema{
	{"ServerReflectionRequest", "message_request", []fieldSchema{
		{"host", 1, "string", singular},
		{"file_by_filename", 3, "string", inOneof},
		{"file_containing_symbol", 4, "string", inOneof},
		{"file_containing_extension", 5, "ExtensionRequest", inOneof},
		{"all_extension_numbers_of_type", 6, "string", inOneof},
		{"list_services", 7, "string", inOneof},
	}},
	{"ExtensionRequest", "", []fieldSchema{
		{"containing_type", 1, "string", singular},
		{"extension_number", 2, "int32", singular},
	}},
	{"ServerReflectionResponse", "message_response", []fieldSchema{
		{"valid_host", 1, "string", singular},
		{"original_request", 2, "ServerReflectionRequest", singular},
		{"file_descriptor_response", 4, "FileDescriptorResponse", inOneof},
		{"all_extension_numbers_response", 5, "ExtensionNumberResponse", inOneof},
		{"list_services_response", 6, "ListServiceResponse", inOneof},
		{"error_response", 7, "ErrorResponse", inOneof},
	}},
	{"FileDescriptorResponse", "", []fieldSchema{{"file_descriptor_proto", 1, "bytes", repeated}}},
	{"ExtensionNumberResponse", "", []fieldSchema{
		{"base_type_name", 1, "string", singular},
		{"extension_number", 2, "int32", repeated},
	}},
	{"ListServiceResponse", "", []fieldSchema{{"service", 1, "ServiceResponse", repeated}}},
	{"ServiceResponse", "", []fieldSchema{{"name", 1, "string", singular}}},
	{"ErrorResponse", "", []fieldSchema{
		{"error_code", 1, "int32", singular},
		{"error_message", 2, "string", singular},
	}},
}

// version is one of the two packages.
type version struct {
	service string // full name
	path    string
	symbols map[string]bool // full names
	file    []byte          // encoded FileDescriptorProto
}

func newVersion(name string) (*version, error) {
	pkg := "grpc.reflection." + name
	v := &version{
		service: pkg + "." + service,
		path:    "grpc/reflection/" + name + "/reflection.proto",
		symbols: map[string]bool{},
	}
	declare := func(parent, name string) (*string, string) {
		full := parent + "." + name
		v.symbols[full] = true
		return &name, full
	}

	s := new(descriptorpb.ServiceDescriptorProto)
	s.Name, _ = declare(pkg, service)
	m := &descriptorpb.MethodDescriptorProto{
		InputType:       proto.String("." + pkg + "." + messages[0].name),
		OutputType:      proto.String("." + pkg + "." + messages[2].name),
		ClientStreaming: proto.Bool(true),
		ServerStreaming: proto.Bool(true),
	}
	m.Name, _ = declare(v.service, method)
	s.Method = append(s.Method, m)

	file := &descriptorpb.FileDescriptorProto{
		Name:    &v.path,
		Package: &pkg,
		Syntax:  proto.String("proto3"),
		Service: []*descriptorpb.ServiceDescriptorProto{s},
	}
	for _, m := range messages {
		message, full := new(descriptorpb.DescriptorProto), ""
		message.Name, full = declare(pkg, m.name)
		if m.oneof != "" {
			oneof := new(descriptorpb.OneofDescriptorProto)
			oneof.Name, _ = declare(full, m.oneof)
			message.OneofDecl = append(message.OneofDecl, oneof)
		}
		for _, f := range m.fields {
			field := &descriptorpb.FieldDescriptorProto{
				Number: &f.number,
				Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}
			field.Name, _ = declare(full, f.name)
			if kind, ok := kinds[f.kind]; ok {
				field.Type = &kind
			} else {
				field.Type = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum()
				field.TypeName = proto.String("." + pkg + "." + f.kind)
			}
			switch f.cardinality {
			case repeated:
				field.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			case inOneof:
				field.OneofIndex = proto.Int32(0)
			}
			message.Field = append(message.Field, field)
		}
		file.MessageType = append(file.MessageType, message)
	}
	var err error
	v.file, err = proto.Marshal(file)
	return v, err
}
