package reflection_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/reflection"
)

var versions = []string{"v1", "v1alpha"}

// schema returns gRPC's reflection.proto, which the tests use for all messages.
func schema(t testing.TB, version string) protoreflect.FileDescriptor {
	t.Helper()
	text, err := os.ReadFile("testdata/reflection.txtpb")
	if err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(parse(t, strings.ReplaceAll(string(text), "VERSION", version)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// parse parses a file in text form.
func parse(t testing.TB, text string) *descriptorpb.FileDescriptorProto {
	t.Helper()
	file := new(descriptorpb.FileDescriptorProto)
	if err := prototext.Unmarshal([]byte(text), file); err != nil {
		t.Fatal(err)
	}
	return file
}

// registry registers files. A file comes after the files that it imports.
func registry(t testing.TB, protos ...*descriptorpb.FileDescriptorProto) (*protoregistry.Files, *protoregistry.Types) {
	t.Helper()
	files, types := new(protoregistry.Files), new(protoregistry.Types)
	for _, p := range protos {
		file, err := protodesc.NewFile(p, files)
		if err != nil {
			t.Fatal(err)
		}
		if err := files.RegisterFile(file); err != nil {
			t.Fatal(err)
		}
		for i := range file.Extensions().Len() {
			if err := types.RegisterExtension(dynamicpb.NewExtensionType(file.Extensions().Get(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files, types
}

// serve serves with ttrpcx.Serve on a unix socket, and returns a client that is ttrpc's own.
func serve(t testing.TB, options reflection.Options) *ttrpc.Client {
	t.Helper()
	services, err := reflection.Services(options)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	for name, desc := range services {
		server.RegisterService(name, desc)
	}
	address := proctest.Socket(t)
	listener, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: address, Services: services})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ttrpcx.Serve(ctx, server, listener) }()
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return client
}

// stream is a reflection call.
type stream struct {
	ttrpc.ClientStream
	t      testing.TB
	schema protoreflect.FileDescriptor
}

func open(t testing.TB, client *ttrpc.Client, version string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	s, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true},
		"grpc.reflection."+version+".ServerReflection", "ServerReflectionInfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{s, t, schema(t, version)}
}

func (s *stream) message(name protoreflect.Name, text string) *dynamicpb.Message {
	s.t.Helper()
	m := dynamicpb.NewMessage(s.schema.Messages().ByName(name))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// send sends any bytes as a request.
func (s *stream) send(encoded []byte) {
	s.t.Helper()
	raw := new(emptypb.Empty)
	raw.ProtoReflect().SetUnknown(encoded)
	if err := s.SendMsg(raw); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends a request in text form and returns the response. It checks and removes the original request in it.
func (s *stream) ask(request string) *dynamicpb.Message {
	s.t.Helper()
	req := s.message("ServerReflectionRequest", request)
	if err := s.SendMsg(req); err != nil {
		s.t.Fatal(err)
	}
	resp := s.message("ServerReflectionResponse", "")
	if err := s.RecvMsg(resp); err != nil {
		s.t.Fatalf("%s: %v", request, err)
	}
	if left := resp.GetUnknown(); len(left) > 0 {
		s.t.Errorf("%s: the response has unknown fields: %q", request, left)
	}
	original := resp.Descriptor().Fields().ByName("original_request")
	if got := resp.Get(original).Message().Interface(); !proto.Equal(got, req) {
		s.t.Errorf("%s: the original request is %v", request, got)
	}
	resp.Clear(original)
	return resp
}

// want asks, and compares the response with one in text form.
func (s *stream) want(request, response string) {
	s.t.Helper()
	want := s.message("ServerReflectionResponse", response)
	if got := s.ask(request); !proto.Equal(got, want) {
		s.t.Errorf("%s: the response is %v, want %v", request, got, want)
	}
}

// files asks, and returns the files of the response in order.
func (s *stream) files(request string) []*descriptorpb.FileDescriptorProto {
	s.t.Helper()
	resp := s.ask(request)
	answer := resp.Descriptor().Fields().ByName("file_descriptor_response")
	if !resp.Has(answer) {
		s.t.Fatalf("%s: the response is %v, want files", request, resp)
	}
	m := resp.Get(answer).Message()
	list := m.Get(m.Descriptor().Fields().Get(0)).List()
	files := make([]*descriptorpb.FileDescriptorProto, list.Len())
	for i := range files {
		files[i] = new(descriptorpb.FileDescriptorProto)
		if err := proto.Unmarshal(list.Get(i).Bytes(), files[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	return files
}

func (s *stream) wantFiles(request string, want ...string) {
	s.t.Helper()
	var got []string
	for _, f := range s.files(request) {
		got = append(got, f.GetName())
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("%s: the files are %v, want %v", request, got, want)
	}
}

// wantError asks, and fails the test unless the answer is an error with the code, and with the text in its message.
func (s *stream) wantError(request string, code codes.Code, text string) {
	s.t.Helper()
	resp := s.ask(request)
	answer := resp.Descriptor().Fields().ByName("error_response")
	m := resp.Get(answer).Message()
	gotCode, gotText := m.Get(m.Descriptor().Fields().Get(0)).Int(), m.Get(m.Descriptor().Fields().Get(1)).String()
	if !resp.Has(answer) || codes.Code(gotCode) != code || !strings.Contains(gotText, text) {
		s.t.Errorf("%s: the error is %d %q, want %d with %q", request, gotCode, gotText, code, text)
	}
}

// wantEnd fails the test unless the call ends with the code. For OK, it must end with io.EOF.
func (s *stream) wantEnd(code codes.Code) {
	s.t.Helper()
	err := s.RecvMsg(new(emptypb.Empty))
	if code == codes.OK && !errors.Is(err, io.EOF) || code != codes.OK && status.Code(err) != code {
		s.t.Errorf("the call ended with %v, want %v", err, code)
	}
}

// library has a file (top) that imports another one (tail) in two ways, a service, and extensions of a message.
var library = []string{
	`name: "tail.proto" package: "lib" message_type { name: "Tail" }`,
	`name: "left.proto" package: "lib" dependency: "tail.proto"
	message_type { name: "Left" extension_range { start: 100 end: 200 } }`,
	`name: "right.proto" package: "lib" dependency: "tail.proto"
	enum_type { name: "Right" value { name: "RIGHT_ONE" number: 0 } }`,
	`name: "top.proto" package: "lib" dependency: "left.proto" dependency: "right.proto"
	message_type {
		name: "Top" field { name: "f" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } nested_type { name: "In" }
	}
	service { name: "Book" method { name: "Read" input_type: ".lib.Top" output_type: ".lib.Top" } }`,
	`name: "more.proto" package: "lib" dependency: "left.proto"
	extension { name: "b" number: 150 extendee: ".lib.Left" type: TYPE_STRING label: LABEL_OPTIONAL }
	extension { name: "a" number: 101 extendee: ".lib.Left" type: TYPE_STRING label: LABEL_OPTIONAL }`,
}

func newLibrary(t testing.TB) (*protoregistry.Files, *protoregistry.Types) {
	t.Helper()
	var files []*descriptorpb.FileDescriptorProto
	for _, text := range library {
		files = append(files, parse(t, text))
	}
	return registry(t, files...)
}

func serveLibrary(t testing.TB) *ttrpc.Client {
	t.Helper()
	files, types := newLibrary(t)
	return serve(t, reflection.Options{Services: []string{"lib.Book"}, Files: files, Types: types})
}

func TestListServices(t *testing.T) {
	client := serveLibrary(t)
	for _, v := range versions {
		s := open(t, client, v)
		s.want(`host: "here" list_services: "*"`, `valid_host: "here" list_services_response {
			service { name: "grpc.reflection.v1.ServerReflection" }
			service { name: "grpc.reflection.v1alpha.ServerReflection" }
			service { name: "lib.Book" }
		}`)
		s.want(`list_services: ""`, `list_services_response {
			service { name: "grpc.reflection.v1.ServerReflection" }
			service { name: "grpc.reflection.v1alpha.ServerReflection" }
			service { name: "lib.Book" }
		}`)
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		s.wantEnd(codes.OK)
	}
}

func TestFiles(t *testing.T) {
	client := serveLibrary(t)
	for _, v := range versions {
		s := open(t, client, v)
		s.wantFiles(`file_by_filename: "top.proto"`, "top.proto", "left.proto", "right.proto", "tail.proto")
		s.wantFiles(`file_by_filename: "top.proto"`, "top.proto")
		s.wantFiles(`file_by_filename: "tail.proto"`, "tail.proto")
		s.wantFiles(`file_by_filename: "more.proto"`, "more.proto")

		s = open(t, client, v) // a new call, in which no file was sent yet
		s.wantFiles(`file_by_filename: "right.proto"`, "right.proto", "tail.proto")
		s.wantFiles(`file_by_filename: "top.proto"`, "top.proto", "left.proto")
		s.wantError(`file_by_filename: "bottom.proto"`, codes.NotFound, `"bottom.proto"`)
		s.wantError(`file_by_filename: ""`, codes.NotFound, `""`)
		s.wantFiles(`file_by_filename: "left.proto"`, "left.proto") // the call goes on after an error
	}
	want := parse(t, library[3])
	got := open(t, client, "v1").files(`file_by_filename: "top.proto"`)[0]
	for _, m := range append(got.GetMessageType(), got.GetMessageType()[0].GetNestedType()...) {
		for _, f := range m.GetField() {
			f.JsonName = nil // protodesc has added it
		}
	}
	if !proto.Equal(got, want) {
		t.Errorf("the file is %v, want %v", got, want)
	}
}

func TestSymbols(t *testing.T) {
	client := serveLibrary(t)
	for symbol, file := range map[string]string{
		"lib.Top":       "top.proto",
		"lib.Top.f":     "top.proto",
		"lib.Top.In":    "top.proto",
		"lib.Book":      "top.proto",
		"lib.Book.Read": "top.proto",
		"lib.Right":     "right.proto",
		"lib.RIGHT_ONE": "right.proto",
		"lib.a":         "more.proto",

		"grpc.reflection.v1.ServerReflection":                             "grpc/reflection/v1/reflection.proto",
		"grpc.reflection.v1.ServerReflection.ServerReflectionInfo":        "grpc/reflection/v1/reflection.proto",
		"grpc.reflection.v1alpha.ServerReflectionRequest":                 "grpc/reflection/v1alpha/reflection.proto",
		"grpc.reflection.v1alpha.ServerReflectionRequest.message_request": "grpc/reflection/v1alpha/reflection.proto",
		"grpc.reflection.v1alpha.ErrorResponse.error_code":                "grpc/reflection/v1alpha/reflection.proto",
	} {
		got := open(t, client, "v1").files(fmt.Sprintf("file_containing_symbol: %q", symbol))
		if got[0].GetName() != file {
			t.Errorf("%s is in %s, want %s", symbol, got[0].GetName(), file)
		}
	}
	s := open(t, client, "v1")
	for _, symbol := range []string{
		"", "lib", ".lib.Top", "lib.Bottom", "lib.Book.Write", "grpc.reflection.v1", "grpc.reflection.v1.Nothing",
	} {
		s.wantError(fmt.Sprintf("file_containing_symbol: %q", symbol), codes.NotFound, fmt.Sprintf("%q", symbol))
	}
}

func TestExtensions(t *testing.T) {
	s := open(t, serveLibrary(t), "v1alpha")
	s.want(`all_extension_numbers_of_type: "lib.Left"`,
		`all_extension_numbers_response { base_type_name: "lib.Left" extension_number: 101 extension_number: 150 }`)
	s.want(`all_extension_numbers_of_type: "lib.Tail"`, `all_extension_numbers_response { base_type_name: "lib.Tail" }`)
	s.want(`all_extension_numbers_of_type: "grpc.reflection.v1.ErrorResponse"`,
		`all_extension_numbers_response { base_type_name: "grpc.reflection.v1.ErrorResponse" }`)
	s.wantError(`all_extension_numbers_of_type: "lib.Bottom"`, codes.NotFound, `"lib.Bottom"`)
	// None of these has sent a file.
	s.wantFiles(`file_containing_extension { containing_type: "lib.Left" extension_number: 150 }`,
		"more.proto", "left.proto", "tail.proto")
	for _, bad := range []string{
		`containing_type: "lib.Left" extension_number: 102`, `containing_type: "lib.Left" extension_number: -1`,
		`containing_type: "lib.Left"`, `containing_type: "lib.Bottom" extension_number: 101`, ``,
	} {
		s.wantError(`file_containing_extension { `+bad+` }`, codes.NotFound, "extension")
	}
}

// TestSchema compares the service's own declarations with gRPC's file.
func TestSchema(t *testing.T) {
	client := serveLibrary(t)
	for _, v := range versions {
		want := protodesc.ToFileDescriptorProto(schema(t, v))
		got := open(t, client, versions[0]).files(fmt.Sprintf("file_by_filename: %q", want.GetName()))
		slices.SortFunc(want.MessageType, byName)
		slices.SortFunc(got[0].MessageType, byName)
		if len(got) != 1 || !proto.Equal(got[0], want) {
			t.Errorf("the schema is %v, want %v", got, want)
		}
	}
}

func byName(a, b *descriptorpb.DescriptorProto) int { return strings.Compare(a.GetName(), b.GetName()) }

func TestBadRequests(t *testing.T) {
	client := serveLibrary(t)
	good := open(t, client, "v1")
	long := strings.Repeat("x", 16<<10+1)
	huge := append([]byte{4<<3 | 2, 0x80, 0x80, 0x80, 1}, make([]byte, 2<<20)...)
	for name, c := range map[string]struct {
		request string
		code    codes.Code
	}{
		"empty":                {"", codes.InvalidArgument},
		"only a host":          {"\x0a\x01h", codes.InvalidArgument},
		"unknown kind":         {"\x42\x00", codes.InvalidArgument},
		"symbol is a number":   {"\x20\x01", codes.InvalidArgument},
		"host not UTF-8":       {"\x0a\x01\xff\x3a\x00", codes.InvalidArgument},
		"symbol not UTF-8":     {"\x22\x01\xff", codes.InvalidArgument},
		"type not UTF-8":       {"\x2a\x03\x0a\x01\xff", codes.InvalidArgument},
		"truncated extension":  {"\x2a\x03\x0a\x05l", codes.InvalidArgument},
		"over 16 KiB":          {"\x22\x81\x80\x01" + long, codes.InvalidArgument},
		"unknown, over 16 KiB": {"\x3a\x00\xfa\x01\x81\x80\x01" + long, codes.InvalidArgument},
		"2 MiB":                {string(huge), codes.InvalidArgument},
		"truncated":            {"\x22\x05l", codes.Internal}, // ttrpc decodes it
		"field 0":              {"\x00\x00", codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, client, "v1")
			s.send([]byte(c.request))
			s.wantEnd(c.code)
		})
	}
	good.wantFiles(`file_by_filename: "tail.proto"`, "tail.proto")
}

// TestLastMemberCounts sends more than one member of the oneof. As in protobuf, the last one counts.
func TestLastMemberCounts(t *testing.T) {
	s := open(t, serveLibrary(t), "v1")
	s.send([]byte("\x22\x07lib.Top\x1a\x0atail.proto\xf8\x01\x07"))
	resp := s.message("ServerReflectionResponse", "")
	if err := s.RecvMsg(resp); err != nil {
		t.Fatal(err)
	}
	fields := resp.Descriptor().Fields()
	original := resp.Get(fields.ByName("original_request")).Message()
	if got := resp.Get(fields.ByName("file_descriptor_response")).String(); !strings.Contains(got, "tail.proto") {
		t.Errorf("the answer is %s, want tail.proto", got)
	}
	if got := string(original.GetUnknown()); got != "\xf8\x01\x07" {
		t.Errorf("the original request has the unknown fields %q", got)
	}
}

// bulky returns a file whose encoding has a few bytes more than size.
func bulky(name string, size int, imports ...string) *descriptorpb.FileDescriptorProto {
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String(name + ".proto"),
		Options: &descriptorpb.FileOptions{
			UninterpretedOption: []*descriptorpb.UninterpretedOption{{StringValue: make([]byte, size)}},
		},
	}
	for _, i := range imports {
		file.Dependency = append(file.Dependency, i+".proto")
	}
	return file
}

// TestLargeFiles has more files than fit into one message. The client asks for the others.
func TestLargeFiles(t *testing.T) {
	files, _ := registry(t,
		bulky("a", 3<<20), bulky("b", 2<<20), bulky("c", 1),
		bulky("top", 1<<20, "a", "b", "c"), bulky("over", 5<<20, "c"))
	s := open(t, serve(t, reflection.Options{Files: files}), "v1")
	s.wantFiles(`file_by_filename: "top.proto"`, "top.proto")
	s.wantFiles(`file_by_filename: "top.proto"`, "top.proto") // a does not fit, and does not count as sent
	s.wantFiles(`file_by_filename: "a.proto"`, "a.proto")
	s.wantFiles(`file_by_filename: "top.proto"`, "top.proto", "b.proto", "c.proto")
	s.wantError(`file_by_filename: "over.proto"`, codes.ResourceExhausted, "over.proto")
	s.wantFiles(`file_by_filename: "c.proto"`, "c.proto")
}

// TestDiamonds has a file with 2^40 import paths to the last file. Each file must be sent once.
func TestDiamonds(t *testing.T) {
	const levels = 40
	protos := []*descriptorpb.FileDescriptorProto{bulky("l0", 1), bulky("r0", 1)}
	for i := range levels {
		left, right := fmt.Sprint("l", i), fmt.Sprint("r", i)
		protos = append(protos,
			bulky(fmt.Sprint("l", i+1), 1, left, right), bulky(fmt.Sprint("r", i+1), 1, left, right))
	}
	files, _ := registry(t, protos...)
	s := open(t, serve(t, reflection.Options{Files: files}), "v1")
	if got := len(s.files(fmt.Sprintf(`file_by_filename: "l%d.proto"`, levels))); got != 2*levels+1 {
		t.Errorf("%d files, want %d", got, 2*levels+1)
	}
}

// TestLargestFile has a file that fits into the response if the host in it is short, and does not if it is longer. The
// response must be one that ttrpc can send in each case.
func TestLargestFile(t *testing.T) {
	const limit, from, to = 4 << 20, 14, 32 // bytes of a host
	files, _ := registry(t, bulky("f", limit-110))
	s := open(t, serve(t, reflection.Options{Files: files}), "v1")
	fit := 0
	for n := from; n < to; n++ {
		resp := s.ask(fmt.Sprintf(`host: %q file_by_filename: "f.proto"`, strings.Repeat("h", n)))
		if resp.Has(resp.Descriptor().Fields().ByName("file_descriptor_response")) {
			fit++
		}
	}
	if fit == 0 || fit == to-from {
		t.Errorf("%d of %d answers had the file, want some and not all", fit, to-from)
	}
}

func TestManyStreams(t *testing.T) {
	client := serveLibrary(t)
	var group sync.WaitGroup
	for i := range 50 {
		s := open(t, client, versions[i%2])
		group.Go(func() {
			for range 5 {
				s.want(`all_extension_numbers_of_type: "lib.Tail"`,
					`all_extension_numbers_response { base_type_name: "lib.Tail" }`)
				if got := s.ask(`file_by_filename: "top.proto"`); !strings.Contains(got.String(), "top.proto") {
					t.Errorf("the answer is %v", got)
				}
			}
		})
	}
	group.Wait()
}

func TestOptions(t *testing.T) {
	files, _ := newLibrary(t)
	for service, want := range map[string]string{"lib.Library": `"lib.Library"`, "lib.Top": "top.proto", "": `""`} {
		_, err := reflection.Services(reflection.Options{Services: []string{"lib.Book", service}, Files: files})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with service %q the error is %v, want one with %s", service, err, want)
		}
	}
}

// TestDefaults asks for files that are linked into the test.
func TestDefaults(t *testing.T) {
	s := open(t, serve(t, reflection.Options{}), "v1")
	s.want(`list_services: ""`, `list_services_response {
		service { name: "grpc.reflection.v1.ServerReflection" }
		service { name: "grpc.reflection.v1alpha.ServerReflection" }
	}`)
	s.wantFiles(`file_containing_symbol: "google.protobuf.Empty"`, "google/protobuf/empty.proto")
	s.wantFiles(`file_containing_extension { containing_type: "google.protobuf.FeatureSet" extension_number: 1002 }`,
		"google/protobuf/go_features.proto", "google/protobuf/descriptor.proto")
	for _, v := range versions {
		name := protoreflect.FullName("grpc.reflection." + v + ".ServerReflection")
		if _, err := protoregistry.GlobalFiles.FindDescriptorByName(name); !errors.Is(err, protoregistry.NotFound) {
			t.Errorf("%s is registered (%v): generated code with that name would panic", name, err)
		}
	}
}

// TestRepeatedRequest checks that a request for a file that was asked for before costs less than encoding it again.
func TestRepeatedRequest(t *testing.T) {
	services, err := reflection.Services(reflection.Options{})
	if err != nil {
		t.Fatal(err)
	}
	handler := services["grpc.reflection.v1.ServerReflection"].Streams["ServerReflectionInfo"].Handler
	file := descriptorpb.File_google_protobuf_descriptor_proto
	const n = 100
	asked := testing.AllocsPerRun(1, func() {
		requests := &requests{left: n, path: file.Path()}
		if _, err := handler(t.Context(), requests); err != nil || requests.answered < n*10_000 {
			t.Fatalf("%d bytes of answers, %v", requests.answered, err)
		}
	})
	encoded := testing.AllocsPerRun(1, func() { _, _ = proto.Marshal(protodesc.ToFileDescriptorProto(file)) })
	if asked/n > encoded/10 {
		t.Errorf("a request costs %v allocations, where encoding the file costs %v", asked/n, encoded)
	}
}

// requests is a stream with requests for a file.
type requests struct {
	left, answered int
	path           string
}

func (r *requests) RecvMsg(m any) error {
	if r.left--; r.left < 0 {
		return io.EOF
	}
	name := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), r.path) // file_by_filename
	m.(proto.Message).ProtoReflect().SetUnknown(name)
	return nil
}

func (r *requests) SendMsg(m any) error {
	r.answered += proto.Size(m.(proto.Message))
	return nil
}
