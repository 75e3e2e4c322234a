package runner

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"example.com/ttrpc-starter/bench/result"
)

// Build is where the contenders' binaries are.
type Build struct {
	Dir   string
	Certs string // directory with certificates
}

// starter is the one server that is not the benchmark's own.
const starter = "server"

// Plain returns the path of a binary as it is run. An absolute path is one already.
func (b *Build) Plain(name string) string { return b.path("plain", name) }

// Stripped returns the path of a server's binary without symbols.
func (b *Build) Stripped(name string) string { return b.path("stripped", name) }

func (b *Build) path(kind, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(b.Dir, kind, name)
}

// Make builds all contenders of the benchmark's module in the directory module, and makes certificates.
func Make(ctx context.Context, module, dir string) (*Build, error) {
	b := &Build{Dir: dir, Certs: filepath.Join(dir, "certs")}
	root := filepath.Dir(module)
	plain, stripped := filepath.Join(dir, "plain")+string(filepath.Separator), filepath.Join(dir, "stripped")+string(filepath.Separator)
	for _, c := range []struct {
		dir  string
		args []string
	}{
		{module, []string{"build", "-o", plain, "./contender/..."}},
		{root, []string{"build", "-o", plain, "./" + starter, "./internal/dev/certs"}},
		{module, []string{"build", "-ldflags=-s -w", "-o", stripped, "./contender/..."}},
		{root, []string{"build", "-ldflags=-s -w", "-o", stripped, "./" + starter}},
	} {
		if _, err := goCommand(ctx, c.dir, c.args...); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(b.Certs); err == nil {
		return b, nil
	}
	if out, err := exec.CommandContext(ctx, b.Plain("certs"), b.Certs).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make certificates: %w\n%s", err, out)
	}
	return b, nil
}

// goCommand runs the go command in a way that makes the same binaries everywhere.
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out.String(), nil
}

// size fills in what is known of a server without running it.
func (b *Build) size(ctx context.Context, module string, server string, f *result.Footprint) error {
	for path, size := range map[string]*int64{b.Plain(server): &f.Binary, b.Stripped(server): &f.Stripped} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		*size = info.Size()
	}
	info, err := buildinfo.ReadFile(b.Plain(server))
	if err != nil {
		return err
	}
	f.Modules = len(foreign(info))
	dir, pkg := module, info.Path
	if server == starter {
		dir = filepath.Dir(module)
	}
	packages, err := goCommand(ctx, dir, "list", "-deps", pkg)
	f.Packages = len(strings.Fields(packages))
	return err
}

// foreign returns the modules that are linked and not our own, which are replaced by directories or the main one.
func foreign(info *buildinfo.BuildInfo) []result.Module {
	var modules []result.Module
	for _, m := range info.Deps {
		if m.Replace == nil {
			modules = append(modules, result.Module{Path: m.Path, Version: m.Version})
		}
	}
	return modules
}

// modules returns all modules of all servers and clients.
func (b *Build) modules(contenders []Contender) ([]result.Module, error) {
	versions := map[result.Module]bool{}
	for _, c := range contenders {
		for _, name := range []string{c.Server, c.Client} {
			info, err := buildinfo.ReadFile(b.Plain(name))
			if err != nil {
				return nil, err
			}
			for _, m := range foreign(info) {
				versions[m] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(versions), func(a, b result.Module) int {
		return strings.Compare(a.Path+" "+a.Version, b.Path+" "+b.Version)
	}), nil
}
