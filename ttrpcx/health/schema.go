package health

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// File returns the declarations of gRPC's health.proto, for reflection.Options.More. They are not generated, for the
// reason that package fields gives.
var File = sync.OnceValue(func() protoreflect.FileDescriptor {
	const pkg = ".grpc.health.v1."
	message, enum := descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_ENUM
	watch := method("Watch", pkg+"HealthCheckRequest", pkg+"HealthCheckResponse")
	watch.ServerStreaming = proto.Bool(true)
	current := typed("status", 1, enum, pkg+"HealthCheckResponse.ServingStatus")
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("grpc/health/v1/health.proto"),
		Package: proto.String("grpc.health.v1"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("HealthCheckRequest"), Field: []*descriptorpb.FieldDescriptorProto{text("service", 1)}},
			{
				Name:  proto.String("HealthCheckResponse"),
				Field: []*descriptorpb.FieldDescriptorProto{current},
				EnumType: []*descriptorpb.EnumDescriptorProto{{
					Name: proto.String("ServingStatus"),
					Value: []*descriptorpb.EnumValueDescriptorProto{
						value("UNKNOWN", Unknown), value("SERVING", Serving), value("NOT_SERVING", NotServing),
						value("SERVICE_UNKNOWN", ServiceUnknown),
					},
				}},
			},
			{Name: proto.String("HealthListRequest")},
			{
				Name:  proto.String("HealthListResponse"),
				Field: []*descriptorpb.FieldDescriptorProto{statuses(pkg + "HealthListResponse.StatusesEntry")},
				NestedType: []*descriptorpb.DescriptorProto{{
					Name: proto.String("StatusesEntry"),
					Field: []*descriptorpb.FieldDescriptorProto{
						text("key", 1), typed("value", 2, message, pkg+"HealthCheckResponse"),
					},
					Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
				}},
			},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Health"),
			Method: []*descriptorpb.MethodDescriptorProto{
				method("Check", pkg+"HealthCheckRequest", pkg+"HealthCheckResponse"),
				method("List", pkg+"HealthListRequest", pkg+"HealthListResponse"),
				watch,
			},
		}},
	}, nil)
	if err != nil {
		panic(err) // the declarations above are wrong
	}
	return file
})

func text(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: &name, Number: &number, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
	}
}

func typed(
	name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, typeName string,
) *descriptorpb.FieldDescriptorProto {
	f := text(name, number)
	f.Type, f.TypeName = &kind, &typeName
	return f
}

func statuses(entry string) *descriptorpb.FieldDescriptorProto {
	f := typed("statuses", 1, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, entry)
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	return f
}

func value(name string, number Status) *descriptorpb.EnumValueDescriptorProto {
	return &descriptorpb.EnumValueDescriptorProto{Name: &name, Number: proto.Int32(int32(number))}
}

func method(name, input, output string) *descriptorpb.MethodDescriptorProto {
	return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: &input, OutputType: &output}
}
