// Check-breaking runs `buf breaking` against the commit that a change starts from.
//
// Usage: check-breaking BASE BUF..., where BUF... is the command that runs buf. If BASE is empty, the remote's default
// branch is taken, or else origin/main or main. No such branch, or no .proto in it, is nothing to compare with; a BASE
// that is not there is an error.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if err := check(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "check-breaking:", err)
		os.Exit(1)
	}
}

func check(args []string) error {
	if len(args) < 2 {
		return errors.New("want the base and the command that runs buf as arguments")
	}
	base, buf := args[0], args[1:]
	if base == "" {
		base = defaultBase()
	} else if !isCommit(base) {
		return fmt.Errorf("base %q is not a commit of this clone: fetch it (git fetch --unshallow origin)", base)
	}
	if base == "" {
		fmt.Println("check-breaking: nothing to compare with: there is no origin/HEAD, origin/main or main: give BASE")
		return nil
	}
	protos, err := git("ls-tree", "-r", "--name-only", base, "proto/")
	if err != nil {
		return err
	}
	if !bytes.Contains(protos, []byte(".proto\n")) {
		fmt.Printf("check-breaking: nothing to compare with: %s has no .proto\n", base)
		return nil
	}
	// The tree goes to buf as an archive: buf's own git input clones, which a shallow or detached checkout can refuse.
	tree, err := git("archive", "--format=tar", base)
	if err != nil {
		return err
	}
	fmt.Printf("check-breaking: comparing with %s\n", base)
	cmd := exec.Command(buf[0], append(buf[1:], "breaking", "--against", "-#format=tar")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(tree), os.Stdout, os.Stderr
	err = cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf(advice, base)
	}
	return err
}

// advice does not tell .proto files that break callers from those that do not compile, as buf's exit code does not.
const advice = `buf objects to the .proto files, compared with %s
  To keep callers working: add to what is there, or put what changes into a new package, such as proto/NAME/v2.
  To break them on purpose: name the file in buf.yaml until the change is in the base:
    breaking:
      ignore:
        - proto/NAME/v1/NAME.proto
  To compare with another commit: make check-breaking BASE=COMMIT`

func defaultBase() string {
	for _, branch := range []string{"origin/HEAD", "origin/main", "main"} {
		if isCommit(branch) {
			return branch
		}
	}
	return ""
}

func isCommit(rev string) bool {
	return exec.Command("git", "rev-parse", "--quiet", "--verify", "--end-of-options", rev+"^{commit}").Run() == nil
}

func git(args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("git", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
