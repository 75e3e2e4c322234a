package containerd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/internal/proctest"
)

// config keeps containerd in one directory. What is disabled would look at the machine's file systems, or write
// elsewhere.
const config = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [
	"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
	"io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "%[1]s/c"
[ttrpc]
  address = "%[1]s/c.ttrpc"
`

// daemon starts the machine's containerd in a directory of its own, which it returns.
func daemon(t *testing.T) string {
	t.Helper()
	proctest.Root(t)
	path := proctest.Program(t, "containerd")
	dir := filepath.Dir(strings.TrimPrefix(proctest.Socket(t), "unix://"))
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	p := proctest.Start(t, exec.Command(path, "-c", file))
	p.WaitFor("containerd successfully booted")
	return dir
}

func TestDaemon(t *testing.T) {
	dir := daemon(t)
	flags, address := schema(eventFiles...), filepath.Join(dir, "c.ttrpc")
	if out, _ := ttcurl(t, 0, flags, address, forward, "-d", event("/hello")); out != "{}\n" {
		t.Error(out)
	}
	_, stderr := ttcurl(t, 64+int(codes.InvalidArgument), flags, address, forward, "-d", event("hello"))
	if !strings.Contains(stderr, "must start with '/'") {
		t.Error(stderr)
	}
}

func TestShim(t *testing.T) {
	dir := daemon(t)
	path := proctest.Program(t, "containerd-shim-runc-v2")
	started, log := shim(t, path, dir)
	address := started.GetAddress()
	flags := schema(fmt.Sprintf("runtime/task/v%d/shim.proto", started.GetVersion()))
	task := fmt.Sprintf("containerd.task.v%d.Task/", started.GetVersion())

	out, _ := ttcurl(t, 0, flags, address, task+"Connect", "-d", `{"id": "demo"}`)
	var connected struct{ ShimPid int }
	if err := json.Unmarshal([]byte(out), &connected); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = syscall.Kill(connected.ShimPid, syscall.SIGKILL)
		}
	})
	if name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", connected.ShimPid)); err != nil || name != path {
		t.Errorf("the shim says that it is process %d, which is %s (%v)", connected.ShimPid, name, err)
	}
	ttcurl(t, 64+int(codes.NotFound), flags, address, task+"State", "-d", `{"id": "demo"}`)
	ttcurl(t, 64+int(codes.Unimplemented), schema(eventFiles...), address, forward, "-d", event("/hello"))

	// The shim ends with this call, before or after it answers.
	p := proctest.Run(t, command(flags, address, task+"Shutdown", "-d", `{"id": "demo", "now": true}`))
	if code := p.ExitCode(); code != 0 && code != 64+int(codes.Unavailable) {
		t.Errorf("exit code %d: %s", code, p.Stderr())
	}
	if _, err := io.Copy(io.Discard, log); err != nil { // until nobody has it open for writing
		t.Error(err)
	}
}

// shim starts a shim as containerd does. It returns what the shim says of itself, and its log, which ends with it.
func shim(t *testing.T, path, dir string) (started *bootstrap.BootstrapResult, log io.Reader) {
	t.Helper()
	bundle := filepath.Join(dir, "bundle")
	pipe := filepath.Join(bundle, "log")
	if err := errors.Join(
		os.Mkdir(bundle, 0o700),
		os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600),
		syscall.Mkfifo(pipe, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a writer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // without a writer, r would be at its end at once
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	params, err := proto.Marshal(&bootstrap.BootstrapParams{InstanceID: "demo", Namespace: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, stdin := range [][]byte{nil, params} { // containerd 1's shims refuse parameters there, 2.4's refuse none
		cmd := exec.Command(path, "-namespace", "test", "-id", "demo", "-address", filepath.Join(dir, "c"), "start")
		cmd.Dir = bundle
		cmd.Stdin = bytes.NewReader(stdin)
		if p := proctest.Run(t, cmd); p.ExitCode() == 0 {
			return parseStarted(p.Stdout()), r
		}
	}
	t.Fatalf("%s does not start, with parameters or without", path)
	return nil, nil
}

// parseStarted reads what a shim prints when it has started: a message since containerd 2.3, JSON since 2.0, and an
// address before that.
func parseStarted(printed string) *bootstrap.BootstrapResult {
	started := new(bootstrap.BootstrapResult)
	if proto.Unmarshal([]byte(printed), started) == nil || json.Unmarshal([]byte(printed), started) == nil {
		return started
	}
	return &bootstrap.BootstrapResult{Version: 2, Address: printed}
}
