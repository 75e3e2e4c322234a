package support

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// behaviours are what a program has seen, by row.
type behaviours map[string]cell

// run builds the scratch module with each runtime, calls all features, and watches the behaviour. It adds the cells of
// the runtimes to the rows. It returns one column for each runtime, and one for the library with the last runtime, or
// with the one that the library requires if that is newer. Then the version is that one.
func (l *lab) run(versions []string, rows []*row) (columns []behaviours, library string, err error) {
	columns = make([]behaviours, len(versions)+1)
	errs := make([]error, len(columns))
	var group sync.WaitGroup
	watch := func(i int, build, tag string) error {
		program, err := l.build(build, tag, "behaviour")
		if err == nil {
			group.Go(func() { errs[i] = output(program, &columns[i]) })
		}
		return err
	}
	defer func() {
		group.Wait()
		err = errors.Join(append(errs, err)...)
	}()
	for i, v := range versions {
		// A replacement may be older than what the project requires.
		if err := l.prepare(v, "replace github.com/containerd/ttrpc => github.com/containerd/ttrpc "+v); err != nil {
			return nil, "", err
		}
		if err := watch(i, v, ""); err != nil {
			return nil, "", err
		}
		if err := l.callFeatures(v, rows); err != nil {
			return nil, "", err
		}
	}
	last := len(versions)
	if err := l.prepare("library", "require github.com/containerd/ttrpc "+versions[last-1]); err != nil {
		return nil, "", err
	}
	if err := watch(last, "library", "ttrpcx"); err != nil {
		return nil, "", err
	}
	r, err := command(l.scratch, nil, "go", "list", "-mod=mod", "-modfile=library.mod", "-m", "-f", "{{.Version}}",
		"github.com/containerd/ttrpc")
	return columns, strings.TrimSpace(string(r.stdout)), err
}

// prepare writes a go.mod with one more line, and a go.sum.
func (l *lab) prepare(build, line string) error {
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		build + ".mod": l.goMod + "\n" + line + "\n",
		build + ".sum": string(sum),
		"go.mod":       l.goMod, // the go command wants to see one, even where it takes another
	} {
		if err := os.WriteFile(filepath.Join(l.scratch, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// build builds a program of the scratch module and returns its path.
func (l *lab) build(build, tag, name string) (program string, err error) {
	program = filepath.Join(l.scratch, "bin", build, name)
	_, err = command(l.scratch, nil, "go", "build", "-mod=mod", "-modfile="+build+".mod", "-tags="+tag, "-o", program,
		"./"+name)
	return program, err
}

// What the go command says of a package that does not compile.
var (
	packageLine = regexp.MustCompile(`^# ` + regexp.QuoteMeta(module) + `/gen/(\w+)`)
	errorLine   = regexp.MustCompile(`([^/\s]+\.go):\d+:\d+: (.*)`)
)

// callFeatures compiles the code of all features. Those whose code compiles are linked into one program, which calls
// their methods.
func (l *lab) callFeatures(version string, rows []*row) error {
	failed := map[string]string{}
	r, err := command(l.scratch, nil, "go", "build", "-mod=mod", "-modfile="+version+".mod", "./gen/...")
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	name := ""
	for line := range strings.Lines(r.stderr) {
		if m := packageLine.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := errorLine.FindStringSubmatch(line); m != nil && name != "" && failed[name] == "" {
			failed[name] = l.tidy(m[1] + ": " + m[2])
		}
	}
	if err != nil && len(failed) == 0 {
		return err
	}
	imports := "package main\n\n"
	for _, row := range rows {
		if row.code && failed[row.dir] == "" {
			imports += fmt.Sprintf("import _ %q\n", module+"/gen/"+row.dir)
		}
	}
	if err := os.WriteFile(filepath.Join(l.scratch, "echo", "imports.go"), []byte(imports), 0o600); err != nil {
		return err
	}
	program, err := l.build(version, "", "echo")
	if err != nil {
		return err
	}
	var called map[string]struct {
		Calls  int
		Failed string
	}
	if err := output(program, &called); err != nil {
		return err
	}
	for _, row := range rows {
		c := cell{"works"}
		switch got, ok := called[row.dir]; {
		case !row.code:
			c = cell{"not generated"}
		case failed[row.dir] != "":
			c = cell{"does not compile: `" + failed[row.dir] + "`"}
		case !ok:
			return fmt.Errorf("%s has no service", row.dir)
		case got.Failed != "":
			c = cell{"fails: `" + l.tidy(got.Failed) + "`"}
		case got.Calls == 0:
			c = cell{"compiles"}
		}
		row.cells = append(row.cells, c)
	}
	return nil
}

// output decodes what a program prints.
func output(program string, into any) error {
	r, err := command("", nil, program)
	if err != nil {
		return err
	}
	return json.Unmarshal(r.stdout, into)
}
