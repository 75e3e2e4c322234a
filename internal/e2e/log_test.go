//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// redirected returns a command whose standard output or error is a pipe, and the pipe's end to read from.
func redirected(t *testing.T, cmd *exec.Cmd, redirection string) (_ *exec.Cmd, reader, writer *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	shell := exec.Command("sh", append([]string{"-c", `exec "$0" "$@" ` + redirection, cmd.Path}, cmd.Args[1:]...)...)
	shell.ExtraFiles = []*os.File{w} // descriptor 3
	return shell, r, w
}

// TestUnreadLog fills the pipe of the server's log. The server answers all the same, and it stops. If somebody reads in
// the end, a line says how many lines are missing, and the last line is there.
func TestUnreadLog(t *testing.T) {
	for _, read := range []bool{false, true} {
		calls := 10
		if read {
			calls = 1500 // more than the queue takes
		}
		address := proctest.Socket(t)
		cmd, r, w := redirected(t, server("-address", address, "-max-log-lines", "-1"), "2>&3")
		fill(t, w)
		s := proctest.Start(t, cmd)
		w.Close()
		manyCalls(t, address, calls)
		if !read {
			s.Signal(syscall.SIGTERM)
			if code := s.ExitCode(); code != 0 {
				t.Errorf("exit code after SIGTERM is %d, want 0", code)
			}
			continue
		}
		lost, last := false, ""
		for lines := bufio.NewScanner(r); lines.Scan(); {
			last = lines.Text()
			if strings.Contains(last, "log lines were lost") {
				lost = true
				s.Signal(syscall.SIGTERM)
			}
		}
		if !lost {
			t.Fatal("no line says how many are missing")
		}
		if code := s.ExitCode(); code != 0 || !strings.Contains(last, "server stop") {
			t.Errorf("exit code after SIGTERM is %d, and the last line is %q", code, last)
		}
	}
}

// TestClosedLog closes the pipe of the server's log. Each write to it brings a SIGPIPE.
func TestClosedLog(t *testing.T) {
	address := proctest.Socket(t)
	cmd, r, _ := redirected(t, server("-address", address), "2>&3")
	r.Close()
	s := proctest.Start(t, cmd)
	manyCalls(t, address, 10)
	s.Signal(syscall.SIGTERM)
	if code := s.ExitCode(); code != 0 {
		t.Errorf("exit code after SIGTERM is %d, want 0", code)
	}
}

// TestClosedOutput checks that the client does not succeed if nobody gets its answer.
func TestClosedOutput(t *testing.T) {
	_, address := startServer(t)
	cmd, r, _ := redirected(t, client("-address", address), ">&3")
	r.Close()
	if code := proctest.Run(t, cmd).ExitCode(); code == 0 {
		t.Error("the client's exit code is 0")
	}
}

// fill writes to the pipe until it takes no more.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	for block := bytes.Repeat([]byte("\n"), 1<<16); len(block) > 0; block = block[:len(block)/2] {
		for {
			if err := w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(block); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// manyCalls makes calls of which each puts more than a kilobyte into the log.
func manyCalls(t *testing.T, address string, n int) {
	t.Helper()
	md := ttrpc.MD{"filler": {strings.Repeat("x", 1000)}}
	ctx, cancel := context.WithTimeout(ttrpc.WithMetadata(t.Context(), md), patience)
	defer cancel()
	c, err := ttrpcx.NewClient(ctx, ttrpcx.ClientOptions{Address: address, WaitForReady: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := testv1.CallTest(c).Unary(ctx, &testv1.UnaryRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}
