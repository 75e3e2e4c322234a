package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	install(t, "grpcurl", "v1.9.4")
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

// TestGrpcui has stock grpcui call, through the requests that its page makes.
func TestGrpcui(t *testing.T) {
	install(t, "grpcui", "v1.4.3")
	_, backend := probe(t)
	cmd := exec.Command(proctest.Exe(bin, "grpcui"), "-plaintext", gate(t, backend).address)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var url string
	if _, err := fmt.Fscanf(stdout, "gRPC Web UI available at %s\n", &url); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "probe.v1.Probe") {
		t.Errorf("the page does not name the service, %v", err)
	}
	for kind, answers := range want {
		input := `{"data":[{"data":"eA=="}]}`
		if kind == "Echo" {
			input = `{"data":[{"data":"eA=="},{"data":"eA=="}]}`
		}
		req, err := http.NewRequest(http.MethodPost, url+"invoke/probe.v1.Probe."+kind, strings.NewReader(input))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for _, c := range resp.Cookies() { // one, which shows that the request is the page's
			req.AddCookie(c)
			req.Header.Set("X-Grpcui-Csrf-Token", c.Value)
		}
		result, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer result.Body.Close()
		text, err := io.ReadAll(result.Body)
		if err != nil || result.StatusCode != http.StatusOK || strings.Count(string(text), `"eA=="`) != answers {
			t.Errorf("%s: HTTP %s, %s, %v; want %d answers", kind, result.Status, text, err, answers)
		}
	}
}

// install builds a command of fullstorydev as it was released, with the versions that its own go.mod names.
func install(t *testing.T, name, version string) {
	t.Helper()
	module, dir := "github.com/fullstorydev/"+name, t.TempDir()
	text := fmt.Sprintf("module stock\n\ngo 1.25\n\nrequire %s %s\n", module, version)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-mod=mod", "-o", bin, module+"/cmd/"+name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
