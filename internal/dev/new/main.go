// New makes a project of your own from this one: a directory with the contract, the server and the client, the library
// and the checks, under a module path of your own and, if asked, with the Example service under another name.
//
// Usage: new DIR MODULE SERVICE BUF..., in the directory of the starter. DIR is made; it may exist if it is empty.
// SERVICE is the service's full name, such as todo.v1.Todo; empty keeps example.v1.Example. BUF... is the command that
// runs buf.
//
// It makes DIR complete or not at all. Exit codes: 0 success, 1 failure, 2 arguments that cannot be followed.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// usageError says that the arguments cannot be followed, and what to do.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

const usage = "give at least DIR and MODULE: make new DIR=../app MODULE=github.com/you/app [SERVICE=todo.v1.Todo]"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "new:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	if len(args) < 4 || args[0] == "" || args[1] == "" {
		return usageError{errors.New(usage)}
	}
	dir, err := checkDir(args[0])
	if err != nil {
		return err
	}
	from, err := readProject(ctx)
	if err != nil {
		return err
	}
	names, err := newNames(ctx, from, args[1], args[2])
	if err != nil {
		return err
	}
	files, err := names.rewrite(from)
	if err != nil {
		return err
	}
	if err := write(ctx, dir, files, args[3:]); err != nil {
		return err
	}
	fmt.Printf("%s is %s. Look at it:\n  cd %s\n  make run\n", args[0], names.module, args[0])
	return nil
}

// checkDir returns the directory to make as an absolute path without symbolic links.
func checkDir(arg string) (string, error) {
	dir, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	if entries, err := os.ReadDir(dir); err == nil {
		if len(entries) > 0 {
			return "", usagef("%s is not empty: give a DIR that is not there yet", arg)
		}
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return "", err
		}
	} else if _, err := os.Lstat(dir); err == nil {
		return "", usagef("%s is not a directory: give a DIR that is not there yet", arg)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", usagef("%s is not there: make it first, or give another DIR", filepath.Dir(dir))
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	here, err := filepath.EvalSymlinks(".")
	if err != nil {
		return "", err
	}
	if here, err = filepath.Abs(here); err != nil {
		return "", err
	}
	if inside, err := filepath.Rel(here, dir); err == nil && filepath.IsLocal(inside) {
		return "", usagef("%s is inside the starter: give a DIR next to it, such as ../app", arg)
	}
	return dir, nil
}

// write makes the directory from the files, next to where it will be, so that an error leaves nothing behind.
func write(ctx context.Context, dir string, files map[string]file, buf []string) (err error) {
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	if err := writeFiles(temp, files); err != nil {
		return err
	}
	if err := generate(ctx, temp, files, buf); err != nil {
		return err
	}
	if err := initGit(ctx, temp); err != nil {
		return err
	}
	// An empty directory goes first, because Windows does not rename to a directory that exists.
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(temp, dir)
}

func writeFiles(dir string, files map[string]file) error {
	for name, f := range files {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.content, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// generate writes each gen/, lints the .proto files and compiles the programs. The three together find every name that
// does not fit.
func generate(ctx context.Context, dir string, files map[string]file, buf []string) error {
	for _, at := range bufDirs(slices.Sorted(maps.Keys(files))) {
		at = filepath.Join(dir, filepath.FromSlash(at))
		for _, do := range []string{"lint", "generate"} {
			if err := command(ctx, at, append(slices.Clone(buf), do)...); err != nil {
				return fmt.Errorf("buf %s in the new project: %w", do, err)
			}
		}
	}
	if err := command(ctx, dir, "go", "vet", "./server", "./client"); err != nil {
		return fmt.Errorf("compile the new project: %w", err)
	}
	return nil
}

// initGit makes a repository with everything added and nothing committed: the first commit is the owner's. It does
// nothing if git is not installed.
func initGit(ctx context.Context, dir string) error {
	if _, err := exec.LookPath("git"); err != nil {
		return nil
	}
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"symbolic-ref", "HEAD", "refs/heads/main"}, // init's option for it is missing in old versions of git
		{"add", "--all", "--force"},                 // also what the owner's own configuration ignores
	} {
		if err := command(ctx, dir, append([]string{"git"}, args...)...); err != nil {
			return fmt.Errorf("git %s in the new project: %w", args[0], err)
		}
	}
	return nil
}

// command runs a command in a directory and shows its output. The end of ctx kills it.
func command(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") })
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
