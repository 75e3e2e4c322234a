package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// names are what a new project has in place of the starter's.
type names struct {
	module string
	app    string // what the module path ends with, without a version
	service
}

// example is the service that the starter has.
var example = service{pkg: "example.v1", name: "Example", value: "example", file: "example"}

// service has the names of a service.
type service struct {
	pkg   string // of the .proto file
	name  string
	value string // Go's name for its implementation
	file  string // its name in file names, before the dot
}

func (s service) dir() string { return strings.ReplaceAll(s.pkg, ".", "/") }

// goPackage is what buf calls the generated package: the last two elements.
func (s service) goPackage() string {
	elements := strings.Split(s.pkg, ".")
	return strings.Join(elements[len(elements)-2:], "")
}

func newNames(ctx context.Context, from project, module, fullName string) (names, error) {
	if err := checkModule(ctx, from, module); err != nil {
		return names{}, usagef("module path %q: %w: want one such as github.com/you/app", module, err)
	}
	n := names{module: module, app: path.Base(majorVersion.ReplaceAllString(module, "")), service: example}
	if fullName == "" {
		return n, nil
	}
	var err error
	if n.service, err = newService(from, fullName); err != nil {
		return names{}, usagef("service %q: %w: want one such as todo.v1.Todo", fullName, err)
	}
	return n, nil
}

// majorVersion matches the end of the paths of later versions: https://go.dev/ref/mod#major-version-suffixes
var majorVersion = regexp.MustCompile(`[/.]v[0-9]+$`)

// checkModule leaves the rules to the go command and adds those that it finds out only at the next build.
func checkModule(ctx context.Context, from project, module string) error {
	if module == from.module {
		return errors.New("it is the starter's own")
	}
	if !regexp.MustCompile(`^[\w.-]+$`).MatchString(path.Base(module)) {
		return errors.New(
			"its last element names units and sockets: use letters, digits, dots, hyphens and underscores")
	}
	temp, err := os.MkdirTemp("", "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if _, err := goCommand(ctx, "-C", temp, "mod", "init", module); err != nil {
		return err
	}
	if _, err := goCommand(ctx, "-C", temp, "list", "-m"); err != nil {
		return err
	}
	// The go command looks for packages in the standard library if the first element is one of its directories.
	first, _, _ := strings.Cut(module, "/")
	std, err := goCommand(ctx, "env", "GOROOT")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(std, "src", first)); err == nil {
		return fmt.Errorf("%q belongs to the standard library", first)
	}
	if regexp.MustCompile(`(?m)^\s+` + regexp.QuoteMeta(module) + `(/| v)`).Match(from.files["go.mod"].content) {
		return errors.New("it belongs to a module that the project uses")
	}
	return nil
}

func goCommand(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		line, _, _ := strings.Cut(string(exit.Stderr), "\n") // what follows is advice about go mod init
		return "", errors.New(strings.TrimSuffix(strings.TrimPrefix(line, "go: "), ":"))
	}
	return strings.TrimSpace(string(out)), err
}

var (
	// packageName is what buf lint allows.
	packageName = regexp.MustCompile(`^([a-z][a-z0-9]*(_[a-z0-9]+)*\.)+v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?$`)

	// serviceName matches names that Go's generators take as they are: they write Todo2x as Todo2X.
	serviceName = regexp.MustCompile(`^([A-Z][a-z]*[0-9]*)+$`)
)

func newService(from project, fullName string) (service, error) {
	dot := max(0, strings.LastIndexByte(fullName, '.'))
	s := service{pkg: fullName[:dot], name: strings.TrimPrefix(fullName[dot:], ".")}
	if !packageName.MatchString(s.pkg) {
		return s, errors.New("its package must be words in lower case and a version, separated by dots")
	}
	if !serviceName.MatchString(s.name) {
		return s, errors.New("its last part must be in UpperCamelCase")
	}
	for element := range strings.SplitSeq(s.pkg, ".") {
		if slices.Contains([]string{"internal", "vendor", "testdata"}, element) {
			return s, fmt.Errorf("go treats directories called %s in its own way", element)
		}
	}
	for name := range from.files {
		if strings.HasPrefix(name, "internal/testservice/proto/"+s.dir()+"/") {
			return s, fmt.Errorf("package %s is that of the tests' own service", s.pkg)
		}
	}
	if first, _, _ := strings.Cut(s.pkg, "."); first == "google" || first == "grpc" {
		return s, fmt.Errorf("packages in %s are those of protobuf and gRPC", first)
	}
	if strings.HasSuffix(s.name, "Service") {
		return s, errors.New("the generator adds Service to it")
	}
	return s, s.choose(from)
}

// choose chooses the implementation's name and the file's so that they are not taken.
func (s *service) choose(from project) error {
	taken := map[string]bool{}
	for name, f := range from.files {
		if strings.HasPrefix(name, "server/") && strings.HasSuffix(name, ".go") {
			parsed, err := parser.ParseFile(token.NewFileSet(), name, f.content, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			addNames(taken, parsed)
		}
	}
	s.value = lowerCamel(s.name)
	if taken[s.value] || token.IsKeyword(s.value) || types.Universe.Lookup(s.value) != nil {
		s.value += "Service"
	}
	s.file = strings.ToLower(s.name) // without underscores: a platform can follow one, as in user_linux.go
	for _, dir := range []string{"server", "client", "internal/smoke"} {
		if _, ok := from.files[dir+"/"+s.file+".go"]; ok && s.file != example.file {
			s.file += "service"
		}
	}
	return nil
}

// addNames adds all names that stand in the file, among them those of the packages that it imports.
func addNames(names map[string]bool, f *ast.File) {
	for n := range ast.Preorder(f) {
		switch n := n.(type) {
		case *ast.Ident:
			names[n.Name] = n.Name != example.value
		case *ast.ImportSpec:
			names[path.Base(strings.Trim(n.Path.Value, `"`))] = true
		}
	}
}

// lowerCamel makes TodoList todoList, and HTTPProxy httpProxy.
func lowerCamel(name string) string {
	i := 1
	for i < len(name) && name[i] < 'a' && (i+1 == len(name) || name[i+1] < 'a') {
		i++
	}
	return strings.ToLower(name[:i]) + name[i:]
}
