package main_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"example.com/ttrpc-starter/internal/proctest"
	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
)

// TestProtoset has a server without reflection, and a schema with rules for paths.
func TestProtoset(t *testing.T) {
	file := protodesc.ToFileDescriptorProto(probev1.File_probe_v1_probe_proto)
	method := file.GetService()[0].GetMethod()[0]
	method.Options = new(descriptorpb.MethodOptions)
	proto.SetExtension(method.GetOptions(), annotations.E_Http, &annotations.HttpRule{
		Pattern: &annotations.HttpRule_Get{Get: "/v1/sizes/{size}"},
	})
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "schema.binpb")
	if err := os.WriteFile(path, set, 0o600); err != nil {
		t.Fatal(err)
	}
	_, backend := probe(t, "-reflection=false")
	g := startGate(t, "-insecure", "-backend", backend)
	g.WaitFor("the server has no reflection: give its schema with -protoset")
	g = gate(t, backend, "-protoset", path)
	resp, err := g.http(false).Get(g.url("/v1/sizes/3?act=ACT_SIZE"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Data []byte }
	text, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(text, &answer); err != nil || string(answer.Data) != "\x00\x00\x00" {
		t.Errorf("HTTP %s: %s", resp.Status, text)
	}
	for kind, call := range grpcCallers(probev1.NewProbeClient(g.grpc())) {
		if answers, err := call(t.Context(), load{data: []byte("x")}); err != nil || len(answers) != want[kind] {
			t.Errorf("%s: %q, %v", kind, answers, err)
		}
	}
}

// TestGrpcurl has stock grpcurl call, which finds all of its own accord.
func TestGrpcurl(t *testing.T) {
	install := exec.Command("go", "install", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4")
	install.Env = append(os.Environ(), "GOBIN="+bin)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, backend := probe(t)
	g := gate(t, backend)
	for args, want := range map[string]string{
		"list": "grpc.health.v1.Health grpc.reflection.v1.ServerReflection " +
			"grpc.reflection.v1alpha.ServerReflection probe.v1.Probe",
		"describe probe.v1.Probe.Split": "probe.v1.Probe.Split is a method: " +
			"rpc Split ( .probe.v1.SplitRequest ) returns ( stream .probe.v1.SplitResponse );",
		"-d {} grpc.health.v1.Health/Check":               `{ "status": "SERVING" }`,
		`-d {"data":"eA=="} probe.v1.Probe/Unary`:         `{ "data": "eA==" }`,
		`-d {"data":"eA=="} probe.v1.Probe/Split`:         `{ "data": "eA==" } { "data": "eA==" } { "data": "eA==" }`,
		`-d {"data":"eA=="}{"act":0} probe.v1.Probe/Join`: `{ "data": "eA==" }`,
		`-d {"data":"eA=="}{} probe.v1.Probe/Echo`:        `{ "data": "eA==" } {}`,
	} {
		words := append([]string{"-plaintext"}, strings.Fields(args)...)
		at := len(words) - 1
		if words[1] == "describe" {
			at = 1
		}
		words = append(words[:at:at], append([]string{g.address}, words[at:]...)...)
		p := proctest.Run(t, exec.Command(proctest.Exe(bin, "grpcurl"), words...))
		if got := strings.Join(strings.Fields(p.Stdout()), " "); p.ExitCode() != 0 || got != want {
			t.Errorf("grpcurl %s: exit code %d, %q, want %q: %s", args, p.ExitCode(), got, want, p.Stderr())
		}
	}
}
