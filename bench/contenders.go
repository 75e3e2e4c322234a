package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// contender is a kind of server and of client.
type contender struct {
	name   string
	server string   // a program of contender/, or the path of one that was built of another version
	client string   // the same; server if empty
	flags  []string // of both
	full   bool     // only in the full suite
	starts bool     // has the starter's own flags, and is only looked at while it has little to do
}

const (
	stock   = "ttrpc"
	control = "ttrpc-again"
	ours    = "ours"
	grpcGo  = "grpc-go"
	older   = "older"
)

// contenders are in the order of the tables.
func contenders() []contender {
	const floor = "-heap-floor=64MiB"
	return []contender{
		{name: ours, server: "ours", flags: []string{floor}},
		{name: "ours-no-floor", server: "ours", full: true},
		{name: stock, server: "ttrpc"},
		{name: control, server: "ttrpc"},
		{name: grpcGo, server: "grpc"},
		{name: "grpc-go-floor", server: "grpc", flags: []string{floor}, full: true},
		{name: "connect-go", server: "connect", full: true},
		{name: "drpc", server: "drpc", full: true},
		{name: "net-rpc", server: "netrpc", full: true},
		{name: "raw", server: "raw", full: true},
		{name: "starter", server: "starter", client: "ours", starts: true},
		{name: "starter-grpc", server: "starter-grpc", client: "grpc", starts: true},
	}
}

// build builds the contenders' programs into dir, as small as a release would, and returns what they link of other
// modules: their names and versions.
func build(ctx context.Context, dir string, contenders []contender) (map[string]string, error) {
	packages := map[string]bool{}
	for _, c := range contenders {
		for _, program := range []string{c.server, c.client} {
			if program != "" && !filepath.IsAbs(program) {
				packages["./contender/"+program] = true
			}
		}
	}
	module, err := moduleDir(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	cmd := exec.CommandContext(ctx, "go", append(args, slices.Sorted(maps.Keys(packages))...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "PWD="+module)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the contenders: %w\n%s", err, out)
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Version}}",
		"github.com/containerd/ttrpc", "google.golang.org/grpc", "google.golang.org/protobuf", "connectrpc.com/connect",
		"storj.io/drpc")
	list.Dir, list.Env = module, cmd.Env
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the contenders' modules: %w", err)
	}
	versions := map[string]string{}
	for line := range bytes.Lines(out) {
		if name, version, ok := strings.Cut(strings.TrimSpace(string(line)), " "); ok {
			versions[name] = version
		}
	}
	return versions, nil
}

// moduleDir returns the directory of the benchmark's sources.
func moduleDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	dir := strings.TrimSpace(string(out))
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "contender"))
	}
	if err != nil {
		return "", fmt.Errorf("find the contenders' sources (run it with go run -C bench .): %w", err)
	}
	return dir, nil
}

// program returns the path of what build has built.
func program(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(dir, name)
}
