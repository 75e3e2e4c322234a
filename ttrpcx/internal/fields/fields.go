// Package fields reads and writes the fields of messages for which there is no generated code. Generated code would
// register the messages' names, as gRPC's own does, and a program with both would panic at its start.
package fields

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Raw returns a message that keeps all fields as they are encoded, because it knows none.
func Raw(encoded []byte) *emptypb.Empty {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(encoded)
	return m
}

// Each calls f for each field of a message, with the field's value if that is bytes or a varint.
func Each(b []byte, f func(field protowire.Number, t protowire.Type, v []byte, varint uint64) error) error {
	for len(b) > 0 {
		field, t, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		} else if !field.IsValid() {
			return fmt.Errorf("field %d", field)
		}
		b = b[n:]
		var v []byte
		var varint uint64
		switch t {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(field, t, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(field, t, v, varint); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// SetString sets s to v, which must be valid UTF-8.
func SetString(s *string, v []byte) error {
	if !utf8.Valid(v) {
		return errors.New("a string is not UTF-8")
	}
	*s = string(v)
	return nil
}

// AppendBytes appends a field with bytes or with an encoded message.
func AppendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// AppendString appends a field with a string.
func AppendString(b []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// AppendVarint appends a field with an integer or an enum.
func AppendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
