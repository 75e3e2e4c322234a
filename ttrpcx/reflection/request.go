package reflection

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of ServerReflectionRequest, whose fields from 3 on are a oneof, and of its ExtensionRequest.
const (
	requestHost         protowire.Number = 1
	requestFile         protowire.Number = 3
	requestSymbol       protowire.Number = 4
	requestExtension    protowire.Number = 5
	requestExtensionsOf protowire.Number = 6
	requestServices     protowire.Number = 7

	extensionType   protowire.Number = 1
	extensionNumber protowire.Number = 2
)

// request is a ServerReflectionRequest.
type request struct {
	host   string
	kind   protowire.Number // the field of the oneof that is set, or 0 for none or an unknown one
	name   string           // of a file, symbol or type
	number int32            // of an extension
}

// parseRequest parses an encoded ServerReflectionRequest as proto.Unmarshal does.
func parseRequest(b []byte) (r request, err error) {
	err = eachField(b, func(field protowire.Number, t protowire.Type, v []byte, _ uint64) error {
		if t != protowire.BytesType {
			return nil
		}
		switch field {
		case requestHost:
			return setString(&r.host, v)
		case requestFile, requestSymbol, requestExtensionsOf, requestServices:
			r.kind = field
			return setString(&r.name, v)
		case requestExtension:
			if r.kind != requestExtension { // protobuf merges two ExtensionRequests that follow each other
				r.kind, r.name, r.number = requestExtension, "", 0
			}
			return r.parseExtension(v)
		}
		return nil
	})
	return r, err
}

func (r *request) parseExtension(b []byte) error {
	return eachField(b, func(field protowire.Number, t protowire.Type, v []byte, varint uint64) error {
		switch {
		case field == extensionType && t == protowire.BytesType:
			return setString(&r.name, v)
		case field == extensionNumber && t == protowire.VarintType:
			r.number = int32(varint)
		}
		return nil
	})
}

// eachField calls f for each field of a message, with the field's value if that is bytes or a varint.
func eachField(b []byte, f func(field protowire.Number, t protowire.Type, v []byte, varint uint64) error) error {
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

func setString(s *string, v []byte) error {
	if !utf8.Valid(v) {
		return errors.New("a string is not UTF-8")
	}
	*s = string(v)
	return nil
}
