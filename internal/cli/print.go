package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Printer prints each message as a line of JSON. Fields without a value are included.
type Printer struct{ W io.Writer }

// Print prints one message.
func (p Printer) Print(m proto.Message) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("print %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil { // protojson changes its spaces from build to build
		return err
	}
	line.WriteByte('\n')
	_, err = p.W.Write(line.Bytes())
	return err
}

// PrintAll prints the messages that recv returns, until the stream ends with io.EOF.
func PrintAll[M proto.Message](p Printer, recv func() (M, error)) error {
	for {
		msg, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.Print(msg); err != nil {
			return err
		}
	}
}
