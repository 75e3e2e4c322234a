package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/pluginpb"

	edgev1 "example.com/ttrpc-starter/internal/testservice/gen/edge/v1"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// actAsPlugin is set in the environment of a process that runs main in place of the tests.
const actAsPlugin = "TEST_ACT_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(actAsPlugin) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestGolden takes the generated code that is committed for what must be written.
func TestGolden(t *testing.T) {
	files := []protoreflect.FileDescriptor{
		testv1.File_test_v1_test_proto, edgev1.File_edge_v1_edge_proto, edgev1.File_edge_v1_second_proto,
	}
	got := generated(t, plugin(t), request("paths=source_relative", files...))
	if len(got) != len(files) {
		t.Errorf("%d files were written, want %d", len(got), len(files))
	}
	for name, content := range got {
		want, err := os.ReadFile(filepath.Join(genDir, name))
		if err != nil {
			t.Error(err)
		} else if content != string(want) {
			t.Errorf("%s is not what is committed:\n%s", name, content)
		}
	}
}

func TestWithoutService(t *testing.T) {
	files := generated(t, plugin(t), request("", emptypb.File_google_protobuf_empty_proto))
	if len(files) > 0 {
		t.Errorf("wrote %v for a file without services", files)
	}
}

// TestCompiles compiles what this generator writes together with what the two others do.
func TestCompiles(t *testing.T) {
	for _, c := range []struct {
		name, parameter string
		files           []protoreflect.FileDescriptor
	}{
		{"prefix", ",prefix=My", []protoreflect.FileDescriptor{
			edgev1.File_edge_v1_edge_proto, edgev1.File_edge_v1_second_proto,
		}},
		{"packages with names of packages that are imported", "", parse(t, `
			name: "context.proto" package: "context" options { go_package: "`+genPackage+`/a/context" }
			message_type { name: "Context" }
		`, `
			name: "ttrpc.proto" package: "ttrpc" options { go_package: "`+genPackage+`/a/ttrpc" }
			message_type { name: "Client" }
		`, `
			name: "a.proto" package: "a" options { go_package: "`+genPackage+`/a/a" }
			dependency: ["context.proto", "ttrpc.proto"]
			service {
				name: "A"
				method { name: "Get" input_type: ".context.Context" output_type: ".ttrpc.Client" }
				method {
					name: "Watch" input_type: ".context.Context" output_type: ".ttrpc.Client" server_streaming: true
				}
				method {
					name: "Put" input_type: ".context.Context" output_type: ".ttrpc.Client" client_streaming: true
				}
			}
		`)},
		{"names with and without Service", "", parse(t, `
			name: "a.proto" package: "a" options { go_package: "`+genPackage+`/a/a" }
			message_type { name: "M" }
			service {
				name: "Shop" method { name: "Get" input_type: ".a.M" output_type: ".a.M" server_streaming: true }
			}
			service { name: "ShopService" method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
			service { name: "ShopClient" method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
			service { name: "shop_Conn" method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
		`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stock := request("module="+genPackage, c.files...)
			prefixed := request("module="+genPackage+c.parameter, c.files...)
			compile(t,
				generated(t, goRun("google.golang.org/protobuf/cmd/protoc-gen-go"), stock),
				generated(t, goRun("github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc@v1.2.3"), prefixed),
				generated(t, plugin(t), prefixed))
		})
	}
}

// TestFeatures has a file that a generator may only be given if it says that it knows the feature.
func TestFeatures(t *testing.T) {
	req := request("", parse(t, `
		name: "a.proto" package: "a" syntax: "editions" edition: EDITION_2023 options { go_package: "example.com/a" }
		message_type { name: "M" }
		service { name: "S" method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
	`)...)
	resp := runPlugin(t, plugin(t), req)
	if resp.Error != nil || len(resp.GetFile()) != 1 {
		t.Errorf("answered %v to a file of edition 2023", resp)
	}
	for _, feature := range []pluginpb.CodeGeneratorResponse_Feature{
		pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL,
		pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS,
	} {
		if resp.GetSupportedFeatures()&uint64(feature) == 0 {
			t.Errorf("does not say that it supports %v", feature)
		}
	}
	from, to := resp.GetMinimumEdition(), resp.GetMaximumEdition()
	if from > int32(descriptorpb.Edition_EDITION_PROTO2) || to < int32(descriptorpb.Edition_EDITION_2023) {
		t.Errorf("supports editions from %d to %d", from, to)
	}
}

func TestErrors(t *testing.T) {
	const service = `service { name: "Shop" method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
		source_code_info {
			location { path: [6, 0] span: [41, 0, 2] }
			location { path: [6, 0, 2, 0] span: [42, 0, 2] }
		}`
	for _, c := range []struct {
		name, parameter, declarations string
		want                          []string
	}{
		{
			"message with the server's name", "", `message_type { name: "HandleShop" }` + service,
			[]string{"a.proto:42: a.Shop makes the Go name HandleShop", "a.HandleShop (a.proto:1)"},
		},
		{
			"enum with the client's name", "",
			`enum_type { name: "CallShop" value { name: "ZERO" number: 0 } }` + service,
			[]string{"a.proto:42: a.Shop makes the Go name CallShop", "a.CallShop"},
		},
		{
			"message with a method's name", "", `message_type { name: "Shop_Get_FullMethod" }` + service,
			[]string{"a.proto:43: a.Shop.Get makes the Go name Shop_Get_FullMethod", "a.Shop_Get_FullMethod"},
		},
		{
			"message with a name that has a prefix", "prefix=My", `message_type { name: "HandleMyShop" }` + service,
			[]string{"a.proto:42: a.Shop makes the Go name HandleMyShop"},
		},
		{
			"services", "", `service { name: "HandleShop" } service { name: "ShopService" }`,
			[]string{"a.proto:1: a.ShopService makes the Go name HandleShopService", "a.HandleShop ("},
		},
		{
			"methods", "", `service { name: "Shop"
			method { name: "get" input_type: ".a.M" output_type: ".a.M" }
			method { name: "Get" input_type: ".a.M" output_type: ".a.M" } }
			source_code_info {
			location { path: [6, 0, 2, 0] span: [2, 0, 2] } location { path: [6, 0, 2, 1] span: [3, 0, 2] } }`,
			[]string{"a.proto:4: a.Shop.Get makes the Go name Shop_Get_FullMethod", "a.Shop.get (a.proto:3)"},
		},
		{"unknown parameter", "perfix=My", service, []string{`unknown parameter "perfix"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := runPlugin(t, plugin(t), request(c.parameter, parse(t, `
				name: "a.proto" package: "a" options { go_package: "example.com/a" } message_type { name: "M" }
			`+c.declarations)...))
			for _, want := range c.want {
				if !strings.Contains(resp.GetError(), want) {
					t.Errorf("the error is %q, want %q in it", resp.GetError(), want)
				}
			}
			if len(resp.GetFile()) > 0 {
				t.Error("a file was written")
			}
		})
	}
}

// TestErrorAcrossFiles has a name in another file of the same Go package.
func TestErrorAcrossFiles(t *testing.T) {
	req := request("", parse(t,
		`name: "a.proto" package: "a" options { go_package: "example.com/a" } message_type { name: "HandleShop" }`,
		`name: "b.proto" package: "b" options { go_package: "example.com/a" } service { name: "Shop" }`)...)
	const want = "b.proto:1: b.Shop makes the Go name HandleShop, which a.HandleShop (a.proto:1)"
	if got := runPlugin(t, plugin(t), req).GetError(); !strings.Contains(got, want) {
		t.Errorf("the error is %q, want %q in it", got, want)
	}
}

// plugin returns the command that runs this generator.
func plugin(t *testing.T) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), actAsPlugin+"=1")
	return cmd
}

func goRun(pkg string) *exec.Cmd { return exec.Command("go", "run", pkg) }

// runPlugin runs a generator as protoc and buf do.
func runPlugin(t *testing.T, cmd *exec.Cmd, req *pluginpb.CodeGeneratorRequest) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	in, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		// Such as for an unknown parameter: protogen tells of it in this way.
		return &pluginpb.CodeGeneratorResponse{Error: proto.String(err.Error() + ": " + stderr.String())}
	}
	resp := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(out, resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

// generated returns what a generator writes, by file.
func generated(t *testing.T, cmd *exec.Cmd, req *pluginpb.CodeGeneratorRequest) map[string]string {
	t.Helper()
	resp := runPlugin(t, cmd, req)
	if resp.Error != nil {
		t.Fatal(resp.GetError())
	}
	files := map[string]string{}
	for _, f := range resp.GetFile() {
		files[f.GetName()] = f.GetContent()
	}
	return files
}

// request asks for the files' code.
func request(parameter string, files ...protoreflect.FileDescriptor) *pluginpb.CodeGeneratorRequest {
	req := &pluginpb.CodeGeneratorRequest{Parameter: &parameter}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) { // what a file imports must come before it
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range files {
		add(file)
		req.FileToGenerate = append(req.FileToGenerate, file.Path())
	}
	return req
}

// parse returns files that are described in prototext, each after those that it imports.
func parse(t *testing.T, texts ...string) (files []protoreflect.FileDescriptor) {
	t.Helper()
	set := new(descriptorpb.FileDescriptorSet)
	for _, text := range texts {
		file := new(descriptorpb.FileDescriptorProto)
		if err := prototext.Unmarshal([]byte(text), file); err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, file)
	}
	registry, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range set.GetFile() {
		described, err := registry.FindFileByPath(file.GetName())
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, described)
	}
	return files
}

const (
	genDir     = "../../internal/testservice/gen"
	genPackage = "example.com/ttrpc-starter/internal/testservice/gen"
)

// compile compiles files that are generated below genDir, without writing them there.
func compile(t *testing.T, outputs ...map[string]string) {
	t.Helper()
	root, err := filepath.Abs(genDir)
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	overlay := map[string]string{}
	packages := map[string]bool{}
	for _, files := range outputs {
		for name, content := range files {
			file := filepath.Join(temp, strings.ReplaceAll(name, "/", "_"))
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay[filepath.Join(root, filepath.FromSlash(name))] = file
			packages["./"+filepath.ToSlash(filepath.Dir(name))] = true
		}
	}
	encoded, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(list, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", list)
	for pkg := range packages {
		cmd.Args = append(cmd.Args, pkg)
	}
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}
