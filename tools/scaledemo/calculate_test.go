package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestCalculation holds the pages to what the program prints.
func TestCalculation(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-calculate"}, nil, &out, &out); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"scaling.md", "scaling.ja.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), out.String()) {
			t.Errorf("%s has another table than the program:\n%s", page, out.String())
		}
	}
}
