package reflection

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// FuzzParseRequest compares parseRequest with proto.Unmarshal.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		"", "\x3a\x00", "\x3a\x01*", "\x0a\x01h\x22\x03a.B", "\x1a\x01a\x22\x01b", "\x2a\x05\x0a\x01a\x10\x07",
		"\x2a\x03\x0a\x01a\x2a\x02\x10\x07", "\x2a\x03\x0a\x01a\x3a\x00\x2a\x02\x10\x07",
		"\x2a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x0a\x01\xff", "\x22\x01\xff", "\x2a\x01\x0a",
		"\x20\x07", "\x2b\x2c", "\x2b\x0a", "\x2d\x00\x00\x00\x00", "\x29\x00",
		"\xd8\xd8\xd8\xd80\x00", "\x2a\x06\xd8\xd8\xd8\xd80\x00",
	} {
		f.Add([]byte(seed))
	}
	text, err := os.ReadFile("testdata/reflection.txtpb")
	if err != nil {
		f.Fatal(err)
	}
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(strings.ReplaceAll(string(text), "VERSION", "v1")), &file); err != nil {
		f.Fatal(err)
	}
	schema, err := protodesc.NewFile(&file, nil)
	if err != nil {
		f.Fatal(err)
	}
	message := schema.Messages().ByName("ServerReflectionRequest")
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseRequest(b)
		m := dynamicpb.NewMessage(message)
		if wantErr := proto.Unmarshal(b, m); wantErr != nil || err != nil {
			if (wantErr == nil) != (err == nil) {
				t.Fatalf("the error is %v, package proto's %v", err, wantErr)
			}
			return
		}
		want := request{host: m.Get(message.Fields().ByName("host")).String()}
		if member := m.WhichOneof(message.Oneofs().Get(0)); member != nil {
			want.kind = member.Number()
			if value := m.Get(member); member.Message() == nil {
				want.name = value.String()
			} else {
				fields := member.Message().Fields()
				want.name = value.Message().Get(fields.ByName("containing_type")).String()
				want.number = int32(value.Message().Get(fields.ByName("extension_number")).Int())
			}
		}
		if got.kind != requestExtension {
			got.number = 0 // it may be left from an earlier member of the oneof
		}
		if got != want {
			t.Errorf("the request is %+v, package proto's %+v", got, want)
		}
	})
}
