package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPages checks that the pages, the charts and the table of the READMEs are what the results make.
func TestPages(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "docs", "bench")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "README.ja.md", "docs/bench/results.txt"} {
		b, err := os.ReadFile(filepath.Join("..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := writePages(dir); err != nil {
		t.Fatal(err)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(made, filepath.Join(root, "README.md"), filepath.Join(root, "README.ja.md")) {
		name, _ := filepath.Rel(root, file)
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(filepath.Join("..", name)); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what the results make: run make bench-pages (%v)", name, err)
		}
	}
	old, err := filepath.Glob("../docs/bench/*")
	if err != nil || len(old) != len(made) {
		t.Errorf("docs/bench has %d files, want the %d that the results make (%v)", len(old), len(made), err)
	}
}
