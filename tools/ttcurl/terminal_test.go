//go:build linux

package main

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestTerminal shows that what a server sends cannot act on the terminal, and stays JSON.
func TestTerminal(t *testing.T) {
	_, path := stock(t, "-reflection")
	for want, args := range map[string][]string{
		`"a\u001b[2J\u009b\u202ez"`:       {"-d", `{"foo":"a\u001b[2J\u009b\u202ez"}`},
		`"a\033[2J\302\233\342\200\256z"`: {"-d", `foo:"a\x1b[2J\u009b\u202ez"`, "-format", "text"},
	} {
		t.Run(want, func(t *testing.T) {
			terminal, err := pty.Start(ttcurl(append(args, path, "test.v1.Test/Unary")...))
			if err != nil {
				t.Fatal(err)
			}
			defer terminal.Close()
			b, _ := io.ReadAll(terminal) // ends with EIO
			out := string(b)
			if strings.ContainsAny(out, "\x1b\u009b\u202e") || !strings.Contains(out, want) {
				t.Errorf("printed %q", out)
			}
		})
	}
}
