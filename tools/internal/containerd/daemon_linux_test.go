package containerd_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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
	own := strings.NewReplacer("demo", name, "/run/containerd", dir, "bin/ttcurl", proctest.Exe(programs, "ttcurl"))
	commands := own.Replace(recipe(t, filepath.Join(root, "docs/ttcurl.md")))
	const report = `trap 'echo "exit code $?: $BASH_COMMAND"' ERR` + "\n"
	cmd := exec.Command("bash", "-c", report+commands+commands)
	cmd.Dir = root
	p := proctest.Start(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			for _, pid := range regexp.MustCompile(`Pid": (\d+)`).FindAllStringSubmatch(p.Stdout(), -1) {
				exec.Command("kill", "-9", pid[1]).Run()
			}
			exec.Command("ctr", "task", "rm", "-f", name).Run()
		}
	})
	p.ExitCode()
	const once = `{}
{"shimPid":\d+,"taskPid":\d+}
{"id":"NAME","bundle":"DIR/io.containerd.runtime.v2.task/default/NAME","pid":\d+,"status":"RUNNING",.*}
{"processes":\[{"pid":\d+}\]}
{"stats":{"@type":"io.containerd.cgroups.v[12].Metrics",.*}}
{}
{"exitStatus":137,"exitedAt":"[^"]*"}
{"shimPid":\d+}
{}
`
	want := strings.NewReplacer("NAME", name, "DIR", dir, "\n", "").Replace(once + once)
	out := regexp.MustCompile(`exit code 78: .*Shutdown.*\n`).ReplaceAllString(p.Stdout(), "{}\n")
	if !regexp.MustCompile("^" + want + "$").MatchString(compact(t, out)) {
		t.Error("this is not what the recipe is for")
	}
	if left := proctest.Run(t, exec.Command("ctr", "container", "ls", "-q")).Stdout(); left != "" {
		t.Errorf("the recipe leaves containers: %s", left)
	}
}

// recipe returns the commands of the manual's recipe.
func recipe(t *testing.T, manual string) string {
	t.Helper()
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Recipe: containerd\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands strings.Builder
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		commands.WriteString(block[1])
	}
	return commands.String()
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
