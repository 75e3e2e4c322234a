// Package support has the test that writes the page "what of protobuf and ttrpc works" (../support.md), in both
// languages, from what it sees generators and runtimes do.
package support

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var (
	update     = flag.Bool("update", false, "write the pages")
	generators = flag.String("generators", "v1.2.3,v1.2.10", "`versions` of protoc-gen-go-ttrpc")
	runtimes   = flag.String("runtimes", "v1.2.3,v1.2.10", "`versions` of ttrpc, the newest last")
)

const root = "../.." // the project's

// TestSupport fails if a page is not what this test sees now. With -update, it writes the pages.
func TestSupport(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the pages tell what works on Linux")
	}
	p := page{generators: strings.Split(*generators, ","), runtimes: strings.Split(*runtimes, ",")}
	l, err := newLab(t.TempDir(), p.generators)
	if err != nil {
		t.Fatal(err)
	}
	if p.rows, err = l.generate(p.generators); err != nil {
		t.Fatal(err)
	}
	if p.behaviours, p.library, err = l.run(p.runtimes, p.rows); err != nil {
		t.Fatal(err)
	}
	for name, lang := range map[string]language{"../support.md": english, "../support.ja.md": japanese} {
		want, err := p.render(lang)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *update {
			if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if diff := firstDifference(string(got), want); diff != "" {
			t.Errorf("%s%s\nIf what works has changed: cd docs && go test ./support -update", name, diff)
		}
	}
}

// firstDifference names the first line in which the texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b || i >= len(g) || i >= len(w) {
			return fmt.Sprintf(":%d:\n- %s\n+ %s", i+1, a, b)
		}
	}
	return ""
}

// lab is a directory with the pinned tools and a module that is built with each runtime.
type lab struct {
	dir     string
	scratch string // the module
	goMod   string // what go.mod of each runtime begins with
}

// newLab installs the tools, at the versions that the project pins, and the generators.
func newLab(dir string, generators []string) (*lab, error) {
	l := &lab{dir: dir, scratch: filepath.Join(dir, "scratch")}
	tools := map[string]string{} // a directory to its package@version
	for _, pin := range []struct{ file, pkg string }{
		{"Makefile", "github.com/bufbuild/buf/cmd/buf"},
		{"buf.gen.yaml", "google.golang.org/protobuf/cmd/protoc-gen-go"},
		{"bench/buf.gen.yaml", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"},
	} {
		b, err := os.ReadFile(filepath.Join(root, pin.file))
		if err != nil {
			return nil, err
		}
		found := regexp.MustCompile(regexp.QuoteMeta(pin.pkg) + `@v[\w.+-]+`).Find(b)
		if found == nil {
			return nil, fmt.Errorf("%s does not pin %s", pin.file, pin.pkg)
		}
		tools[filepath.Join(dir, "bin", filepath.Base(pin.pkg))] = string(found)
	}
	for _, v := range generators {
		tools[filepath.Join(dir, "bin", v)] = "github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@" + v
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for bin, pkg := range tools {
		group.Go(func() {
			_, err := command(dir, []string{"GOBIN=" + bin}, "go", "install", pkg)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	group.Wait()
	if failed != nil {
		return nil, failed
	}
	if err := os.CopyFS(l.scratch, os.DirFS("testdata/program")); err != nil {
		return nil, err
	}
	return l, l.readGoMod()
}

// readGoMod takes over what the project requires, most of all protobuf.
func (l *lab) readGoMod() error {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return err
	}
	project := strings.Fields(string(b))[1]
	abs, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	l.goMod = strings.Replace(string(b), "module "+project, "module "+module, 1) +
		fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %[1]s => %q\n", project, abs)
	return nil
}

// module is that of the generated code. Its path lets it import the project's internal packages.
const module = "example.com/ttrpc-starter/scratch"

// exe returns the path of a tool's program.
func (l *lab) exe(dir, name string) string { return filepath.Join(l.dir, "bin", dir, name) }

// command runs a program and returns what it has printed, also if it fails.
func command(dir string, env []string, name string, args ...string) (result, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK=off", "NO_COLOR=1"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{stdout.Bytes(), colors.ReplaceAllString(stderr.String(), "")}
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, r.stderr)
	}
	return r, err
}

type result struct {
	stdout []byte
	stderr string
}

var colors = regexp.MustCompile("\x1b\\[[0-9;]*m")
