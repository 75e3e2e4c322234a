package main

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// depth is how many levels of messages inside a message are filled. Some messages contain themselves.
const depth = 3

// filled returns a message, of which t is the pointer's type, with a value in each field.
func filled(t reflect.Type, variant int) proto.Message {
	m := reflect.New(t.Elem()).Interface().(proto.Message)
	fill(m.ProtoReflect(), variant, depth)
	return m
}

func fill(m protoreflect.Message, variant, depth int) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		// Its bytes must be those of the message that its URL names.
		if err := a.MarshalFrom(wrapperspb.String(fmt.Sprint("any ", variant))); err != nil {
			panic(err)
		}
		return
	}
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if o := fd.ContainingOneof(); o != nil && fd != o.Fields().Get(variant%o.Fields().Len()) {
			continue
		}
		set(m, fd, variant, depth)
	}
	name := m.Descriptor().FullName()
	protoregistry.GlobalTypes.RangeExtensionsByMessage(name, func(x protoreflect.ExtensionType) bool {
		set(m, x.TypeDescriptor(), variant, depth)
		return true
	})
}

func set(m protoreflect.Message, fd protoreflect.FieldDescriptor, variant, depth int) {
	isMessage := fd.Message() != nil
	if isMessage && depth == 0 {
		return
	}
	// value fills an element that is a message, or returns one that is not.
	value := func(fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, variant int) protoreflect.Value {
		if fd.Message() == nil {
			return scalar(fd, variant)
		}
		v := empty()
		fill(v.Message(), variant, depth-1)
		return v
	}
	switch {
	case fd.IsMap():
		entries := m.Mutable(fd).Map()
		for i := range 2 {
			key := scalar(fd.MapKey(), variant+i).MapKey()
			entries.Set(key, value(fd.MapValue(), entries.NewValue, variant+i))
		}
	case fd.IsList():
		list := m.Mutable(fd).List()
		for i := range 2 {
			list.Append(value(fd, list.NewElement, variant+i))
		}
	default:
		m.Set(fd, value(fd, func() protoreflect.Value { return m.NewField(fd) }, variant))
	}
}

// scalar returns a value that is not the default one. Odd variants of signed numbers are negative.
func scalar(fd protoreflect.FieldDescriptor, variant int) protoreflect.Value {
	positive := variant + 1
	signed := positive
	if variant%2 == 1 {
		signed = -positive
	}
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(signed))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(signed) << 40)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(positive))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(positive) << 40)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(signed) / 2)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(signed) / 3)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0, 255, byte(variant)})
	default:
		return protoreflect.ValueOfString(fmt.Sprint("é漢 ", variant))
	}
}
