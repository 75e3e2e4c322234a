package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fullstorydev/grpcurl"
	"golang.org/x/term"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"example.com/ttrpc-starter/internal/cli"
)

// output is standard output, or the file of -o. It holds back what is written until it is flushed.
type output struct {
	w        *bufio.Writer
	file     *os.File // nil for standard output
	terminal bool
}

// output opens the output. The file of -o then has what this run writes, and nothing of an earlier one.
func (o *options) output(stdout io.Writer) (*output, error) {
	const size = 64 << 10
	if o.out != "" {
		f, err := os.Create(o.out)
		if err != nil {
			return nil, err
		}
		return &output{w: bufio.NewWriterSize(f, size), file: f}, nil
	}
	f, ok := stdout.(*os.File)
	return &output{w: bufio.NewWriterSize(stdout, size), terminal: ok && term.IsTerminal(int(f.Fd()))}, nil
}

// Write takes whole texts. For a terminal, it escapes what that may act on.
func (o *output) Write(b []byte) (int, error) {
	if !o.terminal {
		return o.w.Write(b)
	}
	if _, err := o.w.Write(cli.PrintableJSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (o *output) flush() error { return o.w.Flush() }

func (o *output) close() error {
	err := o.flush()
	if o.file != nil {
		if closeErr := o.file.Close(); err == nil {
			err = closeErr
		}
	}
	return err
}

// formatter returns what turns messages into text. JSON of a type that the schema does not have is left to grpcurl,
// which prints it encoded.
func (o *options) formatter(t *types) (func(proto.Message) ([]byte, error), error) {
	_, other, err := grpcurl.RequestParserAndFormatter(grpcurl.Format(o.format), t.schema, nil, grpcurl.FormatOptions{
		EmitJSONDefaultFields: o.emitDefaults, IncludeTextSeparator: true,
	})
	if err != nil {
		return nil, err
	}
	byGRPCurl := func(m proto.Message) ([]byte, error) {
		text, err := other(protoadapt.MessageV1Of(m))
		return []byte(text), err
	}
	if o.format == "text" {
		return byGRPCurl, nil
	}
	asJSON := protojson.MarshalOptions{EmitUnpopulated: o.emitDefaults, Resolver: t}
	return func(m proto.Message) ([]byte, error) {
		if text, err := asJSON.Marshal(m); err == nil {
			var b bytes.Buffer
			err = json.Indent(&b, text, "", "  ")
			return b.Bytes(), err
		}
		return byGRPCurl(m)
	}, nil
}

// result is how a call went.
type result struct {
	method               string
	start                time.Time
	connect, first, took time.Duration
}

// object is what -json prints: one object on one line. It writes the messages as they come, so that there may be any
// number.
type object struct {
	out    io.Writer
	format func(proto.Message) ([]byte, error) // nil before there is a schema
	begun  bool
	any    bool // messages were printed
}

func (p *object) begin(method string) error {
	if p.begun {
		return nil
	}
	p.begun = true
	_, err := fmt.Fprintf(p.out, `{"method":%s,"messages":[`, quote(method))
	return err
}

func (p *object) message(method string, m proto.Message) error {
	text, err := p.compact(m)
	if err != nil {
		return err
	}
	if err := p.begin(method); err != nil {
		return err
	}
	if p.any {
		text = append([]byte{','}, text...)
	}
	p.any = true
	_, err = p.out.Write(text)
	return err
}

// notCalled stands in place of a status code where the call has none, because ttcurl did not make it or gave it up.
const notCalled = -1

// end prints the rest. failure is nil, has a status or is why there is none.
func (p *object) end(r result, failure error) error {
	var rest struct {
		Status struct {
			Code    int    `json:"code"`
			Name    string `json:"name"`
			Message string `json:"message"`
		} `json:"status"`
		Details []json.RawMessage `json:"details"`
		Timing  struct {
			Start   time.Time `json:"start"`
			Connect float64   `json:"connectSeconds"`
			First   float64   `json:"firstMessageSeconds"` // 0 without a message
			Total   float64   `json:"totalSeconds"`
		} `json:"timing"`
	}
	rest.Details = []json.RawMessage{}
	var ended interface{ GRPCStatus() *status.Status }
	if failure == nil || errors.As(failure, &ended) {
		var st *status.Status // nil is OK
		if ended != nil {
			st = ended.GRPCStatus()
		}
		rest.Status.Code, rest.Status.Name, rest.Status.Message = int(st.Code()), st.Code().String(), st.Message()
		for _, d := range st.Proto().GetDetails() {
			text, err := p.compact(d)
			if err != nil { // its type is not known here
				text = quote(d.GetTypeUrl())
			}
			rest.Details = append(rest.Details, text)
		}
	} else {
		rest.Status.Code, rest.Status.Name, rest.Status.Message = notCalled, "NotCalled", cli.Text(failure)
	}
	rest.Timing.Start = r.start
	rest.Timing.Connect, rest.Timing.First, rest.Timing.Total = r.connect.Seconds(), r.first.Seconds(), r.took.Seconds()
	text, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	if err := p.begin(r.method); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "],%s\n", text[1:])
	return err
}

func (p *object) compact(m proto.Message) ([]byte, error) {
	format := p.format
	if format == nil {
		format = protojson.Marshal
	}
	text, err := format(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = json.Compact(&b, text)
	return b.Bytes(), err
}

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always has a form
	return b
}
