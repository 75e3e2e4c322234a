// Rename gives the project another module path, in every text file below the working directory but the generated ones.
//
// Usage: rename MODULE
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 || os.Args[1] == "" {
		fmt.Fprintln(os.Stderr, "rename: want the new module path: make rename MODULE=github.com/you/app")
		os.Exit(2)
	}
	if err := rename(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "rename:", err)
		os.Exit(1)
	}
}

func rename(module string) error {
	current, err := goCommand("list", "-m")
	if err != nil {
		return err
	}
	if err := checkPath(module); err != nil {
		return fmt.Errorf("module path %q: %w; want one such as github.com/you/app", module, err)
	}
	files, err := plan(current, module)
	if err != nil {
		return err
	}
	for file, content := range files {
		if err := os.WriteFile(file, content, 0o644); err != nil { // keeps the mode of a file that exists
			return err
		}
		fmt.Println(file)
	}
	return nil
}

// checkPath leaves the rules to the go command and adds the one that it finds out only at the next build: a path whose
// first element is one of the standard library's would be looked for there.
func checkPath(module string) error {
	temp, err := os.MkdirTemp("", "rename-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if _, err := goCommand("-C", temp, "mod", "init", module); err != nil {
		return err
	}
	if _, err := goCommand("-C", temp, "list", "-m"); err != nil {
		return err
	}
	first, _, _ := strings.Cut(module, "/")
	std, err := goCommand("env", "GOROOT")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(std, "src", first)); err == nil {
		return fmt.Errorf("%q belongs to the standard library", first)
	}
	return nil
}

// plan returns the new contents of all files in which the current path stands.
func plan(current, module string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == ".git" || path == "bin" || path == "gen"): // gen/ is generated anew
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		old, err := os.ReadFile(path)
		if err != nil || bytes.IndexByte(old, 0) >= 0 {
			return err
		}
		if now := replacePath(string(old), current, module); now != string(old) {
			files[path] = []byte(now)
		}
		return nil
	})
	return files, err
}

// goesOn matches what makes another path of the one before it, as in example.com/app-tools and example.com/app.v2;
// a slash only leads to a package, and a full stop may end a sentence.
var goesOn = regexp.MustCompile(`^(\w|-|\.\w)`)

// replacePath replaces the path wherever it stands as a whole.
func replacePath(text, current, module string) string {
	var b strings.Builder
	last := byte(' ') // before the rest of the text
	for {
		before, after, ok := strings.Cut(text, current)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if before != "" {
			last = before[len(before)-1]
		}
		if strings.IndexByte("/.-_", last) >= 0 || isAlphanumeric(last) || goesOn.MatchString(after) {
			b.WriteString(current)
		} else {
			b.WriteString(module)
		}
		text, last = after, current[len(current)-1]
	}
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func goCommand(args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.New(strings.TrimPrefix(strings.TrimSpace(stderr.String()), "go: "))
	}
	return strings.TrimSpace(string(out)), nil
}
