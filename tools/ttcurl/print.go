package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fullstorydev/grpcurl"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// output is standard output, or the file of -o, which is not touched before there is something to write.
type output struct {
	io.Writer
	name string // "" is standard output
	file *os.File
}

func (o *output) Write(b []byte) (int, error) {
	if o.name == "" {
		return o.Writer.Write(b)
	}
	if o.file == nil {
		var err error
		if o.file, err = os.Create(o.name); err != nil {
			return 0, err
		}
	}
	return o.file.Write(b)
}

// close may be called again.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	f := o.file
	o.file, o.name = nil, ""
	return f.Close()
}

// printer prints what a call brings, as it comes.
type printer interface {
	begin(method string) error
	message(protoadapt.MessageV1) error
	end(*status.Status, timing) error
}

type timing struct {
	start                time.Time
	connect, first, took time.Duration
}

// plainPrinter prints the messages only.
type plainPrinter struct {
	w      io.Writer
	format grpcurl.Formatter
}

func (*plainPrinter) begin(string) error               { return nil }
func (*plainPrinter) end(*status.Status, timing) error { return nil }

func (p *plainPrinter) message(m protoadapt.MessageV1) error {
	text, err := p.format(m)
	if err != nil {
		return fmt.Errorf("print an answer: %w", err)
	}
	_, err = fmt.Fprintln(p.w, text)
	return err
}

// jsonPrinter prints one object on one line. It writes the messages as they come, so that there may be any number.
type jsonPrinter struct {
	w      io.Writer
	format grpcurl.Formatter
	any    bool // messages were printed
}

func (p *jsonPrinter) begin(method string) error {
	_, err := fmt.Fprintf(p.w, `{"method":%s,"messages":[`, quote(method))
	return err
}

func (p *jsonPrinter) message(m protoadapt.MessageV1) error {
	text, err := p.compact(m)
	if err != nil {
		return fmt.Errorf("print an answer: %w", err)
	}
	if p.any {
		text = append([]byte{','}, text...)
	}
	p.any = true
	_, err = p.w.Write(text)
	return err
}

func (p *jsonPrinter) end(st *status.Status, t timing) error {
	details := []json.RawMessage{}
	for _, d := range st.Proto().GetDetails() {
		text, err := p.compact(protoadapt.MessageV1Of(d))
		if err != nil { // its type is not known here
			text = []byte(quote(d.GetTypeUrl()))
		}
		details = append(details, text)
	}
	var rest struct {
		Status struct {
			Code    codes.Code `json:"code"`
			Name    string     `json:"name"`
			Message string     `json:"message"`
		} `json:"status"`
		Details []json.RawMessage `json:"details"`
		Timing  struct {
			Start   time.Time `json:"start"`
			Connect float64   `json:"connectSeconds"`
			First   float64   `json:"firstMessageSeconds"` // 0 without a message
			Total   float64   `json:"totalSeconds"`
		} `json:"timing"`
	}
	rest.Status.Code, rest.Status.Name, rest.Status.Message = st.Code(), st.Code().String(), st.Message()
	rest.Details = details
	rest.Timing.Start = t.start
	rest.Timing.Connect, rest.Timing.First, rest.Timing.Total = t.connect.Seconds(), t.first.Seconds(), t.took.Seconds()
	text, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.w, "],%s\n", text[1:])
	return err
}

func (p *jsonPrinter) compact(m protoadapt.MessageV1) ([]byte, error) {
	text, err := p.format(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = json.Compact(&b, []byte(text))
	return b.Bytes(), err
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always has a form
	return string(b)
}
