package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync/atomic"

	"github.com/fullstorydev/grpcurl"
	"google.golang.org/protobuf/protoadapt"
)

// requests reads a call's messages and says where in the input one is wrong.
type requests struct {
	format  grpcurl.Format
	schema  *schema
	options grpcurl.FormatOptions
	text    grpcurl.RequestParser
	json    *json.Decoder
	lines   lines
	count   int
	failed  atomic.Pointer[error] // also read while next waits for input
}

func newRequests(in io.Reader, format grpcurl.Format, s *schema, options grpcurl.FormatOptions) *requests {
	r := &requests{format: format, schema: s, options: options}
	r.lines.Reader = in
	if format == grpcurl.FormatText {
		r.text = grpcurl.NewTextRequestParser(in)
	} else {
		r.json = json.NewDecoder(&r.lines)
	}
	return r
}

// next reads a message into m and returns io.EOF after the last.
func (r *requests) next(m protoadapt.MessageV1) error {
	err := r.read(m)
	if err == nil {
		r.count++
	} else if err != io.EOF {
		err = fmt.Errorf("request message %d, %w", r.count+1, err)
		r.failed.CompareAndSwap(nil, &err)
	}
	return err
}

// failure is what next returned, unless that was io.EOF.
func (r *requests) failure() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *requests) read(m protoadapt.MessageV1) error {
	if r.text != nil {
		err := r.text.Next(m)
		if err != nil && err != io.EOF {
			err = fmt.Errorf("text: %w", err) // with line and column
		}
		return err
	}
	var message json.RawMessage
	if err := r.json.Decode(&message); err != nil {
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return fmt.Errorf("%s: %w", r.lines.position(syntax.Offset-1), err)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%s: the JSON ends too early", r.lines.position(r.lines.read))
		}
		if err == io.EOF {
			return err
		}
		return fmt.Errorf("%s: %w", r.lines.position(r.lines.read), err)
	}
	parser, _, err := grpcurl.RequestParserAndFormatter(r.format, r.schema, bytes.NewReader(message), r.options)
	if err == nil {
		err = parser.Next(m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.lines.position(r.json.InputOffset()-int64(len(message))), err)
	}
	return nil
}

// lines remembers where the lines of what is read begin.
type lines struct {
	io.Reader
	read   int64
	breaks []int64 // offsets of the newlines
}

func (l *lines) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			l.breaks = append(l.breaks, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// position names the byte at the offset, as editors count.
func (l *lines) position(offset int64) string {
	line := sort.Search(len(l.breaks), func(i int) bool { return l.breaks[i] >= offset })
	column := offset + 1
	if line > 0 {
		column = offset - l.breaks[line-1]
	}
	return fmt.Sprintf("line %d, column %d", line+1, column)
}
