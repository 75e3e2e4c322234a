package reflection

import (
	"google.golang.org/protobuf/encoding/protowire"

	"example.com/ttrpc-starter/ttrpcx/internal/fields"
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
	err = fields.Each(b, func(field protowire.Number, t protowire.Type, v []byte, _ uint64) error {
		if t != protowire.BytesType {
			return nil
		}
		switch field {
		case requestHost:
			return fields.SetString(&r.host, v)
		case requestFile, requestSymbol, requestExtensionsOf, requestServices:
			r.kind = field
			return fields.SetString(&r.name, v)
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
	return fields.Each(b, func(field protowire.Number, t protowire.Type, v []byte, varint uint64) error {
		switch {
		case field == extensionType && t == protowire.BytesType:
			return fields.SetString(&r.name, v)
		case field == extensionNumber && t == protowire.VarintType:
			r.number = int32(varint)
		}
		return nil
	})
}
