package ttrpcx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// asNobody runs f as another user, in the given groups. Only one thread gets these ids, and it ends after f.
func asNobody(t *testing.T, gid int, groups []int, f func()) {
	t.Helper()
	proctest.Root(t)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		defer close(failed)
		err := unix.Setgroups(groups) // of this thread; unix.Setresuid would change all threads
		for _, id := range []struct{ call, value int }{{unix.SYS_SETRESGID, gid}, {unix.SYS_SETRESUID, nobody}} {
			v := uintptr(id.value)
			if _, _, errno := unix.RawSyscall(uintptr(id.call), v, v, v); errno != 0 {
				err = errors.Join(err, errno)
			}
		}
		if err != nil {
			failed <- err
			return
		}
		f()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// sharedDir returns a new directory that other users can reach. They may not be able to reach TMPDIR.
func sharedDir(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		dir, err := os.MkdirTemp(parent, "t-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		asNobody(t, nobody, nil, func() { _, err = os.Stat(dir) })
		if err == nil {
			return dir
		}
	}
	proctest.Missing(t, "a directory for temporary files that other users can reach: set TMPDIR to one")
	return ""
}

// serveOthers serves on a socket in a directory that other users can reach.
func serveOthers(t *testing.T, o ttrpcx.ServerOptions, service ...testservice.Service) *served {
	t.Helper()
	o.Address = filepath.Join(sharedDir(t), "s")
	return serve(t, o, service...)
}

func TestPeerFromContext(t *testing.T) {
	peers := make(chan ttrpcx.Peer, 1)
	service := unary(func(ctx context.Context) error {
		p, ok := ttrpcx.PeerFromContext(ctx)
		if !ok {
			return errors.New("no peer in the context")
		}
		peers <- p
		return nil
	})
	t.Run("same user", func(t *testing.T) {
		s := serve(t, ttrpcx.ServerOptions{}, service)
		if err := call(t.Context(), mustDial(t, s.options())); err != nil {
			t.Fatal(err)
		}
		p := <-peers
		c := p.Credentials
		if c == nil || int(c.UID) != os.Geteuid() || int(c.GID) != os.Getegid() || c.PID != os.Getpid() {
			t.Errorf("credentials are %+v, want this process's", c)
		}
		if p.Certificate != nil {
			t.Error("there is a certificate")
		}
		text := p.LogValue().String()
		for _, want := range []string{"pid=" + strconv.Itoa(os.Getpid()), "uid=" + strconv.Itoa(os.Geteuid())} {
			if !strings.Contains(text, want) {
				t.Errorf("the log shows %s, want %s in it", text, want)
			}
		}
	})
	t.Run("another user with many groups", func(t *testing.T) {
		groups := make([]int, 100)
		for i := range groups {
			groups[i] = 70000 + i
		}
		s := serveOthers(t, ttrpcx.ServerOptions{Allow: ttrpcx.Allow{UIDs: []uint32{nobody}}}, service)
		var err error
		asNobody(t, 70200, groups, func() {
			var client *ttrpc.Client
			if client, err = dial(t, s.options()); err == nil {
				err = call(t.Context(), client)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		c := (<-peers).Credentials
		if c.UID != nobody || c.GID != 70200 || len(c.Groups) != len(groups) || c.Groups[99] != 70099 {
			t.Errorf("credentials are %+v, want those of the thread", c)
		}
	})
	t.Run("none", func(t *testing.T) {
		if p, ok := ttrpcx.PeerFromContext(t.Context()); ok {
			t.Errorf("there is a peer outside of Serve: %v", p)
		}
	})
}

// TestOtherUsers connects as other users. The modes of the socket and its directories let them.
func TestOtherUsers(t *testing.T) {
	for name, c := range map[string]struct {
		allow    ttrpcx.Allow
		gid      int
		groups   []int
		admitted bool
	}{
		"nobody is added":                {ttrpcx.Allow{}, nobody, nil, false},
		"another uid is added":           {ttrpcx.Allow{UIDs: []uint32{70000}}, nobody, nil, false},
		"another gid is added":           {ttrpcx.Allow{GIDs: []uint32{70000}}, nobody, []int{70001}, false},
		"the gid is added as a uid":      {ttrpcx.Allow{UIDs: []uint32{70000}}, 70000, nil, false},
		"the uid is added as a gid":      {ttrpcx.Allow{GIDs: []uint32{nobody}}, 70000, nil, false},
		"its uid is added":               {ttrpcx.Allow{UIDs: []uint32{1, nobody}}, nobody, nil, true},
		"its gid is added":               {ttrpcx.Allow{GIDs: []uint32{1, 70000}}, 70000, nil, true},
		"a supplementary group is added": {ttrpcx.Allow{GIDs: []uint32{70002}}, nobody, []int{70001, 70002}, true},
	} {
		t.Run(name, func(t *testing.T) {
			called := make(chan struct{}, 1)
			service := unary(func(context.Context) error { called <- struct{}{}; return nil })
			s := serveOthers(t, ttrpcx.ServerOptions{Allow: c.allow}, service)
			if err := os.Chmod(strings.TrimPrefix(s.address, "unix://"), 0o666); err != nil {
				t.Fatal(err)
			}
			var err error
			asNobody(t, c.gid, c.groups, func() {
				var client *ttrpc.Client
				if client, err = dial(t, s.options()); err == nil {
					err = call(t.Context(), client)
				}
			})
			if c.admitted {
				if err != nil {
					t.Errorf("the call failed: %v", err)
				}
				if lines := s.log.lines(); len(lines) > 0 {
					t.Errorf("logged %q", lines)
				}
				return
			}
			if err == nil {
				t.Error("the call was answered")
			}
			s.log.wantOnly(t, "connection refused", "not allowed",
				"peer.uid=65534", "peer.pid="+strconv.Itoa(os.Getpid()))
			select {
			case <-called:
				t.Error("the call reached its handler")
			default:
			}
			if err := call(t.Context(), mustDial(t, s.options())); err != nil {
				t.Errorf("the server's own user is not served any more: %v", err)
			}
		})
	}
}

// callRole is the environment variable with which this test's binary, started again, is a client that calls there. Its
// exit code is the code of the call's status.
const callRole = "TTRPCX_TEST_CALL"

// listenRole is the same for a server, which only starts.
const listenRole = "TTRPCX_TEST_LISTEN"

func init() {
	var err error
	if address := os.Getenv(callRole); address != "" {
		err = callOnce(address)
	} else if address := os.Getenv(listenRole); address != "" {
		_, err = ttrpcx.Listen(context.Background(), ttrpcx.ServerOptions{Address: address})
	} else {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(int(status.Code(err)))
}

func callOnce(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := ttrpcx.NewClient(ctx, ttrpcx.ClientOptions{Address: address})
	if err != nil {
		return err
	}
	return testservice.CallAll(ctx, testv1.CallTest(client))
}

// sharedBinary returns a copy of this binary, because others may not be able to reach the binary itself.
func sharedBinary(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(sharedDir(t), "client")
	binary, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.WriteFile(exe, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	return exe
}

// TestOtherUsersProcess runs a client process as another user. The server is in this process.
func TestOtherUsersProcess(t *testing.T) {
	exe := sharedBinary(t)
	for name, c := range map[string]struct {
		allow ttrpcx.Allow
		code  codes.Code
	}{
		"refused":  {ttrpcx.Allow{}, codes.Unavailable},
		"admitted": {ttrpcx.Allow{GIDs: []uint32{70001}}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOthers(t, ttrpcx.ServerOptions{Allow: c.allow})
			if err := os.Chmod(strings.TrimPrefix(s.address, "unix://"), 0o666); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), callRole+"="+s.address)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{70001}},
			}
			p := proctest.Run(t, cmd)
			if code := codes.Code(p.ExitCode()); code != c.code {
				t.Errorf("the client's call ended with %v, want %v", code, c.code)
			}
			if c.code != codes.OK {
				s.log.wantOnly(t, "connection refused", "peer.uid=65534", "peer.pid="+strconv.Itoa(p.Process.Pid))
			}
		})
	}
}

// TestUserNamespace runs a client and a server in a user namespace that maps only nobody's ids, which are the overflow
// ids, too. All other users look like nobody there.
func TestUserNamespace(t *testing.T) {
	exe := sharedBinary(t)
	allow := ttrpcx.Allow{UIDs: []uint32{nobody}}
	address := serveOthers(t, ttrpcx.ServerOptions{Allow: allow}).address // root's
	dir := sharedDir(t)
	if err := os.Chown(dir, 70000, 70000); err != nil {
		t.Fatal(err)
	}
	run := func(namespace bool, role string) string {
		t.Helper()
		cmd := exec.Command(exe)
		cmd.Env, cmd.Dir = append(os.Environ(), role), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: namespace},
		}
		if namespace {
			ids := []syscall.SysProcIDMap{{ContainerID: nobody, HostID: nobody, Size: 1}}
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		}
		out, err := cmd.CombinedOutput()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			proctest.Missing(t, "user namespaces (%v): set user.max_user_namespaces above zero", err)
		}
		return string(out)
	}
	if out := run(false, callRole+"="+address); !strings.HasSuffix(out, "<nil>\n") {
		t.Errorf("a client outside of the namespace got %s", out)
	}
	out := run(true, callRole+"="+address)
	if !strings.Contains(out, "uid 65534") || !strings.Contains(out, "does not map") {
		t.Errorf("a client inside got %swant that it refuses the server", out)
	}
	out = run(true, listenRole+"="+dir+"/s")
	if !strings.Contains(out, "belongs to a user") || !strings.Contains(out, "does not map") {
		t.Errorf("a server inside got %swant that it refuses the directory", out)
	}
}

func TestMapsAll(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"0 0 1000\n1000 1000 4294966295\n":   true,
		"0 1000 1\n1 100000 65536\n":         false,
		"65534 65534 1\n":                    false,
		"0 0 4294967294\n":                   false,
		"":                                   false,
		"0 0\n":                              false,
		"0 0 4294967295\nnonsense\n":         false,
	} {
		if got := ttrpcx.MapsAll(text); got != want {
			t.Errorf("%q maps all ids: %t, want %t", text, got, want)
		}
	}
}

// TestServerOfAnotherUser checks that a client sends nothing to a server of a user that is not allowed.
func TestServerOfAnotherUser(t *testing.T) {
	dir := sharedDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	var l net.Listener
	asNobody(t, nobody, nil, func() {
		var err error
		if l, err = net.Listen("unix", path); err != nil {
			t.Error(err)
		}
	})
	defer l.Close()
	o := ttrpcx.ClientOptions{Address: path}
	_, err := dial(t, o)
	wantError(t, err, "connect to unix://"+path, "uid 65534", "Allow.UIDs")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if sent, err := io.ReadAll(conn); len(sent) > 0 || err != nil {
		t.Errorf("the client sent %q, %v", sent, err)
	}
	for _, allow := range []ttrpcx.Allow{{UIDs: []uint32{nobody}}, {GIDs: []uint32{nobody}}} {
		o.Allow = allow
		if _, err := dial(t, o); err != nil {
			t.Errorf("the client refuses the server with %+v: %v", allow, err)
		}
	}
}

// TestSocketOfAnotherUser checks the error of a user that may not connect to the socket.
func TestSocketOfAnotherUser(t *testing.T) {
	s := serveOthers(t, ttrpcx.ServerOptions{})
	var err error
	asNobody(t, nobody, nil, func() { _, err = dial(t, s.options()) })
	wantError(t, err, s.address, "permission denied", "another user")
}

func TestAbstractSocket(t *testing.T) {
	l, err := net.Listen("unix", "@ttrpcx-test-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, log: new(journal)}
	s.run(ttrpcx.NewListener(l, ttrpcx.ServerOptions{Logger: s.log.logger()}))
	if !strings.HasPrefix(s.address, "unix-abstract:ttrpcx-test-") {
		t.Errorf("the address is %q", s.address)
	}
	if err := callAll(t.Context(), mustDial(t, s.options())); err != nil {
		t.Error(err)
	}
}
