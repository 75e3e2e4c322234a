package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
)

// kept is what a new project gets: files, and directories, which end in a slash.
var kept = []string{
	".editorconfig", ".gitattributes", ".gitignore", ".github/", ".golangci.yml", "LICENSE", "Makefile",
	"buf.gen.yaml", "buf.yaml", "go.mod", "go.sum",
	"proto/", "server/", "client/", "ttrpcx/", "docs/systemd/", "internal/",
}

// aboutStarter are files below the kept ones that are about the starter alone.
var aboutStarter = regexp.MustCompile(`^internal/(paired/|dev/(new/|testdata/|.*_test\.go$))`)

// keep returns those of the files that a new project gets. It gets no gen/, as buf writes that.
func keep(names []string) []string {
	dirs := bufDirs(names)
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(kept, func(k string) bool {
			return name == k || strings.HasSuffix(k, "/") && strings.HasPrefix(name, k)
		}) ||
			aboutStarter.MatchString(name) ||
			slices.ContainsFunc(dirs, func(dir string) bool {
				return strings.HasPrefix(name, path.Join(dir, "gen")+"/")
			})
	})
}

// bufDirs returns the directories in which buf generates, as the Makefile's BUF_DIRS has them.
func bufDirs(names []string) []string {
	var dirs []string
	for _, name := range names {
		if path.Base(name) == "buf.gen.yaml" && strings.Count(name, "/") <= 3 {
			dirs = append(dirs, path.Dir(name))
		}
	}
	return dirs
}

type file struct {
	content []byte
	mode    fs.FileMode
}

// project is the starter: the files of it that a new project gets, and its module path.
type project struct {
	files  map[string]file
	module string
}

// readProject reads the project in the working directory: what git tracks of it or, without git, everything that is not
// ignored.
func readProject(ctx context.Context) (project, error) {
	p := project{files: map[string]file{}}
	names, err := list(ctx)
	if err != nil {
		return p, err
	}
	for _, name := range names {
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue // removed but still tracked; there are no links to keep
		} else if err != nil {
			return p, err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return p, err
		}
		p.files[name] = file{content, info.Mode().Perm()}
	}
	first, _, _ := strings.Cut(string(p.files["go.mod"].content), "\n")
	var ok bool
	if p.module, ok = strings.CutPrefix(strings.TrimSpace(first), "module "); !ok {
		return p, errors.New(
			"there is no go.mod that starts with its module path: run make new in the starter's directory")
	}
	return p, nil
}

// list returns the names, with slashes, of the files to keep.
func list(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	names := strings.Split(string(out), "\x00")
	if err != nil || !slices.Contains(names, "go.mod") { // no git, no checkout, or somebody else's
		if names, err = walk(); err != nil {
			return nil, err
		}
	}
	return keep(names), nil
}

// walk returns the names of all files but those in the directories that .gitignore names.
func walk() ([]string, error) {
	ignored, err := os.ReadFile(".gitignore")
	if err != nil {
		return nil, fmt.Errorf("tell what is to be left out: %w", err)
	}
	var names []string
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (name == ".git" || bytes.Contains(ignored, []byte("/"+name+"/\n"))) {
			return fs.SkipDir
		}
		names = append(names, path.Clean(name))
		return err
	})
	return names, err
}
