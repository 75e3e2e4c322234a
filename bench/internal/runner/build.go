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
	Bin   string // directory of what runs: binaries without symbols
	Plain string // directory of servers with symbols, and of what makes certificates
	Certs string // directory with certificates
}

// Path returns the path of a binary as it runs, which is without symbols. An absolute path is one already.
func (b *Build) Path(name string) string { return in(b.Bin, name) }

func in(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(dir, name)
}

// Make builds the contenders of the benchmark's module in the directory module into dir, and makes certificates.
func Make(ctx context.Context, module, dir string, contenders []Contender) (*Build, error) {
	b := &Build{Bin: filepath.Join(dir, "bin"), Plain: filepath.Join(dir, "plain"), Certs: filepath.Join(dir, "certs")}
	var all, servers []string // packages
	for _, c := range contenders {
		for _, name := range []string{c.source(), c.Client} {
			found, err := filepath.Glob(filepath.Join(module, "contender", "*", name))
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
			if c.Own && name == c.source() {
				servers = append(servers, found...)
			}
		}
	}
	for _, c := range []struct {
		dir, into string
		packages  []string
		flags     []string
	}{
		{module, b.Bin, all, strip},
		{module, b.Plain, servers, nil},
		{filepath.Dir(module), b.Plain, []string{"./internal/dev/certs"}, nil},
	} {
		if len(c.packages) == 0 {
			continue
		}
		args := slices.Concat([]string{"build", "-o", c.into + string(filepath.Separator)}, c.flags, c.packages)
		if _, err := goCommand(ctx, c.dir, args...); err != nil {
			return nil, err
		}
	}
	for _, c := range contenders {
		if c.source() == c.Server {
			continue
		}
		for _, dir := range []string{b.Bin, b.Plain} {
			if err := copyFile(in(dir, c.source()), in(dir, c.Server)); err != nil {
				return nil, err
			}
		}
	}
	if out, err := exec.CommandContext(ctx, in(b.Plain, "certs"), b.Certs).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make certificates: %w\n%s", err, out)
	}
	return b, nil
}

// source returns the name of the server that is built, which a control's is a copy of.
func (c *Contender) source() string {
	if c.ControlOf != "" {
		return c.ControlOf + "-server"
	}
	return c.Server
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

var strip = []string{"-ldflags=-s -w"}

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

// measure fills in what is known of a server without running it.
func (b *Build) measure(ctx context.Context, module string, server string, f *result.Footprint) error {
	var err error
	if f.Binary, err = size(in(b.Plain, server)); err != nil {
		return err
	}
	if f.Stripped, err = size(in(b.Bin, server)); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(in(b.Bin, server))
	if err != nil {
		return err
	}
	f.Modules = len(foreign(info))
	packages, err := goCommand(ctx, module, "list", "-deps", info.Path)
	f.Packages = len(strings.Fields(packages))
	return err
}

func size(file string) (int64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
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
			info, err := buildinfo.ReadFile(b.Path(name))
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
