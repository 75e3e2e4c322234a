package reflection

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// This file has the declarations of reflection.proto, because clients can ask for that file, too. It is not generated,
// for the reason that package fields gives.

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

// newSchema returns the file of a version. The versions differ only in the name of the package.
func newSchema(version string) (protoreflect.FileDescriptor, error) {
	pkg := "grpc.reflection." + version
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String("grpc/reflection/" + version + "/reflection.proto"),
		Package: &pkg,
		Syntax:  proto.String("proto3"),
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String(service),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name:            proto.String(method),
				InputType:       proto.String("." + pkg + "." + messages[0].name),
				OutputType:      proto.String("." + pkg + "." + messages[2].name),
				ClientStreaming: proto.Bool(true),
				ServerStreaming: proto.Bool(true),
			}},
		}},
	}
	for _, m := range messages {
		message := &descriptorpb.DescriptorProto{Name: &m.name}
		if m.oneof != "" {
			message.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: &m.oneof}}
		}
		for _, f := range m.fields {
			field := &descriptorpb.FieldDescriptorProto{
				Name:   &f.name,
				Number: &f.number,
				Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}
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
	return protodesc.NewFile(file, nil)
}
