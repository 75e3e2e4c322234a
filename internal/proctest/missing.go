package proctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Missing skips the test because the machine lacks something. The message says what is missing and how to get it. With
// TEST_REQUIRE=all in the environment, the test fails instead: use that on machines where everything is installed.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("TEST_REQUIRE") == "all" {
		t.Fatalf("missing, and TEST_REQUIRE=all: "+format, args...)
	}
	t.Skipf("missing: "+format, args...)
}

// Program returns the path of the first one of the programs that is installed. If none is, it calls Missing.
func Program(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, "%s: install the package and have it in PATH", strings.Join(names, " or "))
	return ""
}

// Root calls Missing unless the test runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root: run `make test-root`")
	}
}
