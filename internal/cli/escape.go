package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/grpc/status"
)

// Printable returns s with Go's escapes in place of all that a terminal may act on and does not show: line ends,
// control and format characters (such as U+202E, which turns the text around) and bytes that are not UTF-8. Otherwise a
// peer could send a text that hides a part of a line or looks like another one.
func Printable(s string) string { return escape(s, "") }

// PrintableLines is Printable for a text whose line ends and tabs are meant.
func PrintableLines(s string) string { return escape(s, "\n\t") }

func escape(s, keep string) string {
	if isPrintable(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		_, size := utf8.DecodeRuneInString(s)
		if part := s[:size]; isPrintable(part) || strings.Contains(keep, part) {
			b.WriteString(part)
		} else {
			quoted := strconv.Quote(part)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// errorText returns the text of an error for a terminal. Lines of the program's own stay; a server's message is one.
func errorText(err error) string {
	text := Text(err)
	if failed, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		if message := failed.GRPCStatus().Message(); message != "" {
			text = strings.ReplaceAll(text, message, Printable(message))
		}
	}
	return PrintableLines(text)
}

// PrintableJSON is PrintableLines for JSON, or for text that takes its escapes. Within its strings JSON has no line
// ends, tabs or separators of records.
func PrintableJSON(text []byte) []byte {
	if isPrintable(string(text)) {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		if unicode.IsPrint(r) || strings.ContainsRune("\n\t\x1e", r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.Bytes()
}

// jsonWriter escapes the lines of slog's JSON handler, which writes each with one call.
type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(line []byte) (int, error) {
	if _, err := j.w.Write(PrintableJSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
