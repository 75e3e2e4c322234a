package containerd_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/ttrpc-starter/internal/proctest"
)

// config keeps containerd in one directory. What is disabled would look at the machine's file systems, or write
// elsewhere.
const config = `version = 2
root = "%[1]s/root"
state = "%[1]s"
disabled_plugins = [
	"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
	"io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "%[1]s/containerd.sock"
[ttrpc]
  address = "%[1]s/containerd.sock.ttrpc"
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
	flags, address := schema(eventFiles...), filepath.Join(dir, "containerd.sock.ttrpc")
	if out, _ := ttcurl(t, 0, flags, address, forward, "-d", event("/hello")); out != "{}\n" {
		t.Error(out)
	}
	_, stderr := ttcurl(t, 64+int(codes.InvalidArgument), flags, address, forward, "-d", event("hello"))
	if !strings.Contains(stderr, "must start with '/'") {
		t.Error(stderr)
	}
}

// TestRecipe runs the recipe of ttcurl's manual twice, as it stands there but for the container's name and containerd's
// directory, which are the test's own.
func TestRecipe(t *testing.T) {
	dir := daemon(t)
	for _, program := range []string{"bash", "ctr", "runc", "containerd-shim-runc-v2"} {
		proctest.Program(t, program)
	}
	const root = "../../.."
	t.Setenv("CONTAINERD_ADDRESS", filepath.Join(dir, "containerd.sock"))
	wantContainers(t, root)

	name := "ttcurl-" + strings.ToLower(rand.Text())
	mine := strings.NewReplacer("demo", name, "/run/containerd", dir, "bin/ttcurl", proctest.Exe(programs, "ttcurl"))
	commands := mine.Replace(recipe(t, "ttcurl.md"))
	cmd := exec.Command("bash", "-c", commands+commands)
	cmd.Dir = root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := proctest.Start(t, cmd)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // the log's reader
		for _, pid := range regexp.MustCompile(`Pid": (\d+)`).FindAllStringSubmatch(p.Stdout(), -1) {
			_ = exec.Command("kill", "-9", pid[1]).Run()
		}
		_ = exec.Command("ctr", "task", "rm", "-f", name).Run()
	})
	p.ExitCode()
	once := strings.NewReplacer("NAME", name, "DIR", dir, "\n", "").Replace(`{}
{"shimPid":\d+,"taskPid":\d+}
{"id":"NAME","bundle":"DIR/io.containerd.runtime.v2.task/default/NAME","pid":\d+,"status":"RUNNING",.*}
{"processes":\[{"pid":\d+}\]}
{"stats":{"@type":"io.containerd.cgroups.v[12].Metrics",.*}}
{}
{"exitStatus":137,"exitedAt":"[^"]*"}
{"shimPid":\d+}
({})?`) // the shim may end before it answers Shutdown
	out := compact(t, p.Stdout())
	if !regexp.MustCompile("^" + once + once + "$").MatchString(out) {
		t.Error("this is not what the recipe is for")
	}
	for _, pid := range regexp.MustCompile(`{"shimPid":(\d+)}`).FindAllStringSubmatch(out, -1) {
		if exe, err := os.Readlink("/proc/" + pid[1] + "/exe"); err == nil {
			t.Errorf("process %s goes on after its shutdown: %s", pid[1], exe)
		}
	}
	if left := proctest.Run(t, exec.Command("ctr", "container", "ls", "-q")).Stdout(); left != "" {
		t.Errorf("the recipe leaves containers: %s", left)
	}
}

// wantContainers calls Missing where no container can be started, as in some containers.
func wantContainers(t *testing.T, root string) {
	t.Helper()
	rootfs := t.TempDir()
	build := exec.Command("go", "build", "-o", rootfs, "./server")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command("ctr", "run", "--rm", "--rootfs", rootfs, "ttcurl-"+rand.Text(), "/server", "-h")
	if out, err := run.CombinedOutput(); err != nil {
		proctest.Missing(t, "a machine that lets containerd start containers: %v\n%s", err, out)
	}
}
