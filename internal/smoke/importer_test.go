//go:build unix

package smoke

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// importer is a program in another module that calls the service.
const importer = `package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	examplev1 "example.com/ttrpc-starter/gen/example/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() {
	client, err := ttrpcx.NewClient(context.Background(), ttrpcx.ClientOptions{
		Address: os.Args[1], Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := examplev1.CallExample(client).Method1(context.Background(), &examplev1.Method1Request{Foo: "Foo"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetFoo())
}
`

// TestImporter builds and runs a program of another module that imports the library and the generated code.
func TestImporter(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, rest, _ := strings.Cut(read("go.mod"), "\n")
	module := "example.com/ttrpc-starter"
	write("go.mod", "module importer.example\n"+rest+"\nreplace "+module+" => "+root+"\n")
	write("go.sum", read("go.sum"))
	write("main.go", importer)

	address := proctest.Socket(t)
	proctest.Start(t, exec.Command(proctest.Exe(binaries(), "server"), "-address", address)).WaitFor("server start")
	cmd := exec.Command("go", "run", ".", address)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	p := proctest.Run(t, cmd)
	if got := p.Stdout(); got != "Foo\n" {
		t.Errorf("the program printed %q, and %q on standard error, want Foo", got, p.Stderr())
	}
}
