package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// printer prints one message.
type printer func(proto.Message) error

// jsonPrinter returns a function that writes a message to w as one line of JSON, fields without a value included.
func jsonPrinter(w io.Writer) printer {
	return func(m proto.Message) error {
		b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("print %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
		var line bytes.Buffer
		if err := json.Compact(&line, b); err != nil { // protojson varies its spaces on purpose
			return err
		}
		line.WriteByte('\n')
		_, err = w.Write(line.Bytes())
		return err
	}
}
