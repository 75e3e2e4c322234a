package containerd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	eventtypes "github.com/containerd/containerd/api/events"
	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"example.com/ttrpc-starter/internal/proctest"
)

// TestGate has stock grpcurl call a containerd that runs, through ttgate. containerd has no reflection over ttrpc.
func TestGate(t *testing.T) {
	dir := daemon(t)
	if err := proctest.Build(programs, "../..", "./ttgate"); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("go", "install", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4")
	install.Env = append(os.Environ(), "GOBIN="+programs)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	set := new(descriptorpb.FileDescriptorSet)
	have := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if have[file.Path()] {
			return
		}
		have[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(new(events.ForwardRequest).ProtoReflect().Descriptor().ParentFile())
	add(new(eventtypes.TaskOOM).ProtoReflect().Descriptor().ParentFile())
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	protoset := filepath.Join(t.TempDir(), "schema.binpb")
	if err := os.WriteFile(protoset, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	gate := proctest.Start(t, exec.Command(proctest.Exe(programs, "ttgate"), "-insecure",
		"-listen", "tcp://127.0.0.1:0", "-backend", filepath.Join(dir, "containerd.sock.ttrpc"), "-protoset", protoset))
	gate.WaitFor("backend up")
	address := regexp.MustCompile(`gate start address=tcp://(\S+)`).FindStringSubmatch(gate.Stderr())[1]
	grpcurl := func(code int, args ...string) string {
		t.Helper()
		p := proctest.Run(t, exec.Command(proctest.Exe(programs, "grpcurl"), args...))
		if p.ExitCode() != code {
			t.Errorf("exit code %d, want %d", p.ExitCode(), code)
		}
		return p.Stdout() + p.Stderr()
	}
	service, _, _ := strings.Cut(forward, "/")
	if out := grpcurl(0, "-plaintext", address, "list"); !strings.Contains(out, service) {
		t.Error(out)
	}
	if out := grpcurl(0, "-plaintext", "-d", event("/hello"), address, forward); out != "{}\n" {
		t.Error(out)
	}
	out := grpcurl(64+int(codes.InvalidArgument), "-plaintext", "-d", event("hello"), address, forward)
	if !strings.Contains(out, "must start with '/'") {
		t.Error(out)
	}
}
