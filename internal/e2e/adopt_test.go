//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// TestAdopt takes a server and a client that use plain ttrpc, and changes the lines that listen, serve and dial. The
// changed server must survive frames that make the original one panic.
func TestAdopt(t *testing.T) {
	const file = "internal/e2e/stock/main.go"
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	for old, now := range map[string]string{
		"\t\"net\"\n": "\t\"example.com/ttrpc-starter/ttrpcx\"\n",
		`net.Listen("unix", path)`: `ttrpcx.Listen(
			context.Background(), ttrpcx.ServerOptions{Address: path})`,
		`server.Serve(context.Background(), l)`: `ttrpcx.Serve(context.Background(), server, l)`,
		`net.Dial("unix", path)`: `ttrpcx.Dial(
			context.Background(), ttrpcx.ClientOptions{Address: path})`,
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("%s has %d times %s", file, strings.Count(text, old), old)
		}
		text = strings.Replace(text, old, now, 1)
	}
	dir := t.TempDir()
	adopted := filepath.Join(dir, "main.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, file): adopted}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{adopted: []byte(text), filepath.Join(dir, "overlay"): overlay} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay"), "-o", dir, "./internal/e2e/stock")
	build.Dir = root
	if p := proctest.Run(t, build); p.ExitCode() != 0 {
		t.Fatalf("the changed program does not compile: %s", p.Stderr())
	}

	address := proctest.Socket(t)
	path := strings.TrimPrefix(address, "unix://")
	exe := proctest.Exe(dir, "stock")
	s := proctest.Start(t, exec.Command(exe, "serve", path))
	s.WaitFor("serving")
	w := &watched{Process: s, path: path}
	conn := w.dial(t)
	b := wire.AppendFrame(nil, header(1, wire.TypeRequest, 0), request("Unary", 0, nil).payload)
	if _, err := conn.Write(wire.AppendFrame(b, header(1, wire.TypeData, 0), nil)); err != nil {
		t.Fatal(err)
	}
	wantCut(t, conn)
	for _, client := range []*exec.Cmd{stock("call", path), exec.Command(exe, "call", path)} {
		if p := proctest.Run(t, client); p.ExitCode() != 0 {
			t.Errorf("%s says %q", client.Path, p.Stderr())
		}
	}
}
