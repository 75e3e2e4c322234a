package proctest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"example.com/ttrpc-starter/internal/proctest"
)

// recorder is a test that notes how it was ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestProgram(t *testing.T) {
	for _, c := range []struct {
		require, name   string
		skipped, failed bool
	}{
		{"", "go", false, false},
		{"all", "go", false, false},
		{"", "no-such-program", true, false},
		{"all", "no-such-program", false, true},
	} {
		t.Run(c.name+" "+c.require, func(t *testing.T) {
			t.Setenv("TEST_REQUIRE", c.require)
			r := &recorder{TB: t}
			var path string
			var ended sync.WaitGroup
			ended.Go(func() { path = proctest.Program(r, "no-such-one", c.name) })
			ended.Wait()
			if got := r.skipped != ""; got != c.skipped {
				t.Errorf("the test is skipped: %v, want %v", got, c.skipped)
			}
			if got := r.failed != ""; got != c.failed {
				t.Errorf("the test fails: %v, want %v", got, c.failed)
			}
			if message := r.skipped + r.failed; message != "" && !strings.Contains(message, "no-such-one or "+c.name) {
				t.Errorf("the message is %q", message)
			}
			if found := path != ""; found != (c.name == "go") {
				t.Errorf("the path is %q", path)
			}
		})
	}
}
