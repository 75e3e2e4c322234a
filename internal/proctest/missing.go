package proctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Missing skips the test because the machine lacks what the test needs. The message says what that is, and how to get it.
// With TEST_REQUIRE=all in the environment, which is for machines where everything is installed, the test fails instead.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("TEST_REQUIRE") == "all" {
		t.Fatalf("missing, and TEST_REQUIRE=all: "+format, args...)
	}
	t.Skipf("missing: "+format, args...)
}

// Program returns the path of the first of the programs that is installed. The test is Missing something if none is.
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

// Root lets only root go on with the test. The test is Missing something as any other user.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root: run `make test-root`")
	}
}
