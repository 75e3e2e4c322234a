// Check-generated fails if gen/ is not, byte for byte, what buf writes from proto/ now. It generates into a temporary
// directory, so that the working tree stays as it is and git is not needed to see a difference. It checks the working
// directory, and those at most three levels below it that have a buf.gen.yaml, and so a gen/, of their own.
//
// Usage: check-generated BUF..., where BUF... is the command that runs buf.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	gen    = "gen"
	advice = `run "make generate" and commit it`

	// maxDiff is how many lines of differences are printed in all. A new generator changes every file.
	maxDiff = 60
)

func main() {
	var stale *staleError
	err := checkAll(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "check-generated:", err)
	}
	if errors.As(err, &stale) {
		stale.print()
	}
	if err != nil {
		os.Exit(1)
	}
}

func checkAll(buf []string) error {
	if len(buf) == 0 {
		return errors.New("want the command that runs buf as arguments")
	}
	var stale staleError
	for _, pattern := range []string{"buf.gen.yaml", "*/buf.gen.yaml", "*/*/buf.gen.yaml", "*/*/*/buf.gen.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := (project{filepath.Dir(file)}).check(buf, &stale); err != nil {
				return err
			}
		}
	}
	if len(stale.files) > 0 {
		return &stale
	}
	return nil
}

// staleError says that generated code is not what buf writes now.
type staleError struct {
	dirs  []string // with a gen/ that is stale
	files []string // what is wrong with each file, in a line
	diff  []string // lines
}

func (e *staleError) Error() string {
	return fmt.Sprintf("%s: not what buf writes from proto/: %s", strings.Join(e.dirs, ", "), advice)
}

// print prints what is wrong: the files, and then how they differ, as far as there is room.
func (e *staleError) print() {
	for _, line := range slices.Concat(e.files, e.diff[:min(len(e.diff), maxDiff)]) {
		fmt.Fprintln(os.Stderr, strings.TrimSuffix(line, "\n"))
	}
	if left := len(e.diff) - maxDiff; left > 0 {
		fmt.Fprintf(os.Stderr, "... and %d more lines: after \"make generate\", git diff shows them\n", left)
	}
}

// project is a directory with a buf.gen.yaml and a gen/.
type project struct{ dir string }

// check adds what is wrong to stale; its error is that it cannot tell.
func (p project) check(buf []string, stale *staleError) error {
	temp, err := os.MkdirTemp("", "check-generated-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	// a/ and b/ are what the diff calls the two sides.
	committed, fresh := filepath.Join(temp, "a"), filepath.Join(temp, "b")
	if err := p.generate(buf, fresh); err != nil {
		return err
	}
	if err := p.copyGen(committed); err != nil {
		return err
	}
	findings, err := compare(committed, fresh)
	if err != nil {
		return err
	}
	if err := p.addIgnored(findings, fresh); err != nil {
		return err
	}
	if len(findings) == 0 {
		return nil
	}
	stale.dirs = append(stale.dirs, filepath.Join(p.dir, gen)+"/")
	for _, file := range slices.Sorted(maps.Keys(findings)) {
		stale.files = append(stale.files, finding(filepath.Join(p.dir, file), findings[file]))
	}
	stale.diff = slices.AppendSeq(stale.diff, diff(temp))
	return nil
}

// generate runs buf and shows the user its warnings and errors.
func (p project) generate(buf []string, dir string) error {
	cmd := exec.Command(buf[0], slices.Concat(buf[1:], []string{"generate", "--output", dir})...)
	cmd.Dir = p.dir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run buf generate in %s: %w", p.dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("buf generate wrote nothing in %s: %w", p.dir, err)
	}
	for _, e := range entries {
		if e.Name() != gen {
			return fmt.Errorf("buf.gen.yaml writes to %s, which is not checked: let every plugin write below gen/",
				e.Name())
		}
	}
	return nil
}

// copyGen copies gen/ into dir. A gen/ that is missing makes an empty copy: every file in it is then missing.
func (p project) copyGen(dir string) error {
	err := os.CopyFS(filepath.Join(dir, gen), os.DirFS(filepath.Join(p.dir, gen)))
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o700)
	}
	return err
}

// compare returns what is wrong with each file of gen/ that is not the same in both directories.
func compare(committed, fresh string) (map[string]string, error) {
	old, err := read(committed)
	if err != nil {
		return nil, err
	}
	now, err := read(fresh)
	if err != nil {
		return nil, err
	}
	findings := map[string]string{}
	for file, content := range now {
		if was, ok := old[file]; !ok {
			findings[file] = "missing"
		} else if was != content {
			findings[file] = "changed"
		}
	}
	for file := range old {
		if _, ok := now[file]; !ok {
			findings[file] = "extra"
		}
	}
	return findings, nil
}

// read returns the contents of all files below dir. A symbolic link's is where it points to, which no output equals.
func read(dir string) (map[string]string, error) {
	files := map[string]string{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := fs.ReadLink(root, path)
			files[path] = "link to " + target
			return err
		}
		content, err := fs.ReadFile(root, path)
		files[path] = string(content)
		return err
	})
	return files, err
}

// addIgnored adds the generated files that git will not commit because they are ignored and not tracked. Outside a git
// checkout, or in one that does not track this project, nothing is ignored.
func (p project) addIgnored(findings map[string]string, fresh string) error {
	tracked := exec.Command("git", "ls-files", "--error-unmatch", "buf.gen.yaml")
	tracked.Dir = p.dir
	if tracked.Run() != nil {
		return nil
	}
	files, err := read(fresh)
	if err != nil {
		return err
	}
	cmd := exec.Command("git", "check-ignore", "--verbose", "--stdin", "-z")
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader(strings.Join(slices.Sorted(maps.Keys(files)), "\x00"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 { // none is ignored
		return nil
	} else if err != nil {
		return fmt.Errorf("git check-ignore: %w", err)
	}
	for fields := range slices.Chunk(strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), 4) {
		source, line, pattern, file := fields[0], fields[1], fields[2], fields[3]
		findings[file] = fmt.Sprintf("ignored by git (%s:%s: %s)", source, line, pattern)
	}
	return nil
}

// diff returns how the two sides differ, in lines. Only the comparison decides whether they do: git may see less, such
// as where it normalizes line ends.
func diff(temp string) iter.Seq[string] {
	cmd := exec.Command("git", "--no-pager", "diff",
		"--no-index", "--no-ext-diff", "--no-textconv", "--no-prefix", "a", "b")
	cmd.Dir = temp
	out, _ := cmd.Output() // its exit code says that there is a difference
	return strings.Lines(string(out))
}

// finding is one line about one file, in the form that GitHub Actions turns into an annotation if it runs there:
// https://docs.github.com/actions/reference/workflow-commands-for-github-actions
func finding(file, what string) string {
	if os.Getenv("GITHUB_ACTIONS") == "true" {
		return fmt.Sprintf("::error file=%s,title=Generated code is stale::%s is %s: %s", file, file, what, advice)
	}
	return fmt.Sprintf("%s: %s", file, what)
}
