package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// maxText bounds the text of one message, in bytes: a message that ttrpc can carry, of 4 MiB, takes less, unless nearly
// all of its text is space or fields with their default values.
const maxText = 128 << 20

var errTooLong = fmt.Errorf("the text is longer than %d MiB: no message of ttrpc's 4 MiB takes that much", maxText>>20)

// separator ends a message in the text format, as with grpcurl.
const separator = '\x1e'

// requests reads a call's messages and says where in the input one is wrong.
type requests struct {
	types  *types
	ignore bool // fields that the schema does not have (JSON)
	lines  lines
	json   *json.Decoder // nil if the format is text
	text   *bufio.Reader
	begin  int64 // offset of the next message (text)
	ended  bool  // there is none (text)
	count  atomic.Int64
	failed atomic.Pointer[error] // also read while next waits for input
}

func newRequests(in io.Reader, o *options, t *types) *requests {
	r := &requests{types: t, ignore: o.allowUnknownFields}
	r.lines.Reader = in
	if o.format == "text" {
		r.text = bufio.NewReader(&r.lines)
	} else {
		r.json = json.NewDecoder(&r.lines)
	}
	return r
}

// next reads a message into m and returns io.EOF after the last.
func (r *requests) next(m proto.Message) error {
	read := r.readJSON
	if r.text != nil {
		read = r.readText
	}
	err := read(m)
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if err == nil {
		r.count.Add(1)
	} else if err != io.EOF && !ended {
		err = fmt.Errorf("request message %d, %w", r.count.Load()+1, err)
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

func (r *requests) readJSON(m proto.Message) error {
	r.lines.next(r.json.InputOffset())
	var text json.RawMessage
	if err := r.json.Decode(&text); err != nil {
		var syntax *json.SyntaxError
		switch {
		case err == io.EOF, errors.Is(err, errTooLong):
			return err
		case errors.As(err, &syntax):
			return fmt.Errorf("%s: %w", r.lines.position(syntax.Offset-1), err)
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%s: the JSON ends too early", r.lines.position(r.lines.read))
		}
		return fmt.Errorf("%s: %w", r.lines.position(r.lines.read), err)
	}
	err := protojson.UnmarshalOptions{DiscardUnknown: r.ignore, Resolver: r.types}.Unmarshal(text, m)
	if err == nil {
		return nil
	}
	message, offset, ok := located(err, text)
	if !ok {
		return errors.New(message)
	}
	if field := fieldAt(text, offset); !strings.Contains(message, field) {
		message = "field " + field + ": " + message
	}
	return fmt.Errorf("%s: %s", r.lines.position(r.json.InputOffset()-int64(len(text))+offset), message)
}

// readText takes empty text for an empty message.
func (r *requests) readText(m proto.Message) error {
	if r.ended {
		return io.EOF
	}
	r.lines.next(r.begin)
	text, err := r.text.ReadBytes(separator)
	if err != nil && err != io.EOF {
		return err
	}
	r.ended = err == io.EOF
	begin := r.begin
	r.begin += int64(len(text))
	text = bytes.TrimSuffix(text, []byte{separator})
	err = prototext.UnmarshalOptions{Resolver: r.types}.Unmarshal(text, m)
	if err == nil {
		return nil
	}
	message, offset, ok := located(err, text)
	if !ok {
		return errors.New(message)
	}
	return fmt.Errorf("%s: %s", r.lines.position(begin+offset), message)
}

// protobufError is how protobuf words its errors. The space at its start can be one of two, so that nobody relies on
// it; but there is no other way to get the place.
var protobufError = regexp.MustCompile(
	`(?s)^proto:[\s\x{a0}]*(?:syntax error[\s\x{a0}]*)?(?:\(line (\d+):(\d+)\): )?(.*)$`)

// located returns what is wrong and, if err says so, at which byte of text.
func located(err error, text []byte) (message string, offset int64, ok bool) {
	parts := protobufError.FindStringSubmatch(err.Error())
	if parts == nil {
		return err.Error(), 0, false
	}
	line, _ := strconv.Atoi(parts[1])
	column, _ := strconv.Atoi(parts[2])
	rest := text
	for ; line > 1; line-- {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	offset = int64(len(text) - len(rest))
	for i := range string(rest) { // the column counts characters
		if column--; column <= 0 {
			offset += int64(i)
			break
		}
	}
	return parts[3], offset, parts[1] != ""
}

// fieldAt returns the path of the field at an offset in JSON, such as items[2].name.
func fieldAt(text []byte, offset int64) string {
	type level struct {
		name  string
		index int // in an array; -1 in an object
		value bool
	}
	var levels []level
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		var last *level
		if n := len(levels); n > 0 {
			last = &levels[n-1]
		}
		name, isName := token.(string)
		switch isName = isName && last != nil && last.index < 0 && !last.value; {
		case isName:
			last.name, last.value = name, true
		case token == json.Delim('}') || token == json.Delim(']'):
			if levels = levels[:len(levels)-1]; len(levels) > 0 {
				levels[len(levels)-1].value = false
			}
		case last != nil && last.index >= 0:
			last.index++
		}
		if d.InputOffset() > offset {
			var path strings.Builder
			for _, l := range levels {
				if l.index >= 0 {
					fmt.Fprintf(&path, "[%d]", max(l.index-1, 0))
				} else if l.name != "" {
					path.WriteString("." + l.name)
				}
			}
			return strings.TrimPrefix(path.String(), ".")
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{index: -1})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
		default:
			if !isName && last != nil {
				last.value = false
			}
		}
	}
}

// lines remembers where the lines of the current message begin.
type lines struct {
	io.Reader
	read   int64
	end    int64   // where the current message is too long
	before int     // lines before the current message
	start  int64   // of the line in which it begins
	breaks []int64 // offsets of the newlines since then
}

// next begins a message at the offset.
func (l *lines) next(offset int64) {
	l.end = offset + maxText
	n := sort.Search(len(l.breaks), func(i int) bool { return l.breaks[i] >= offset })
	if n > 0 {
		l.before += n
		l.start = l.breaks[n-1] + 1
		l.breaks = append(l.breaks[:0], l.breaks[n:]...)
	}
}

func (l *lines) Read(p []byte) (int, error) {
	if l.read >= l.end {
		return 0, errTooLong
	}
	n, err := l.Reader.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			l.breaks = append(l.breaks, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// position names the byte at the offset, as compilers do.
func (l *lines) position(offset int64) string {
	n := sort.Search(len(l.breaks), func(i int) bool { return l.breaks[i] >= offset })
	start := l.start
	if n > 0 {
		start = l.breaks[n-1] + 1
	}
	return fmt.Sprintf("line %d, column %d", l.before+n+1, offset-start+1)
}
