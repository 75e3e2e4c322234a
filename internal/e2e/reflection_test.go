//go:build unix

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/internal/proctest"
)

// reflect sends an encoded request with ttrpc's own client. It returns the elements of the answer, which is the field
// with that number.
func reflect(t *testing.T, client *ttrpc.Client, version, request string, answer protowire.Number) ([][]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true},
		"grpc.reflection."+version+".ServerReflection", "ServerReflectionInfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	message := new(emptypb.Empty)
	message.ProtoReflect().SetUnknown([]byte(request))
	if err := stream.SendMsg(message); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(message); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	var elements [][]byte
	for _, a := range fields(t, message.ProtoReflect().GetUnknown(), answer) {
		elements = append(elements, fields(t, a, 1)...)
	}
	return elements, nil
}

// fields returns the fields with that number in an encoded message. The message must have fields of type bytes only.
func fields(t *testing.T, b []byte, number protowire.Number) (values [][]byte) {
	t.Helper()
	for len(b) > 0 {
		n, _, tag := protowire.ConsumeTag(b)
		v, length := protowire.ConsumeBytes(b[max(tag, 0):])
		if tag < 0 || length < 0 {
			t.Fatalf("%q is not a message with fields of bytes", b)
		}
		if n == number {
			values = append(values, v)
		}
		b = b[tag+length:]
	}
	return values
}

const listServices, fileOfTest = "\x3a\x00", "\x22\x0ctest.v1.Test"

// TestReflection calls a method with the declarations that the server sends.
func TestReflection(t *testing.T) {
	s, address := startServer(t)
	client := dialStock(t, address)
	for _, version := range []string{"v1", "v1alpha"} {
		names, err := reflect(t, client, version, listServices, 6)
		if err != nil {
			t.Fatal(err)
		}
		var services []string
		for _, n := range names {
			services = append(services, string(fields(t, n, 1)[0]))
		}
		want := []string{
			"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
			"test.v1.Test",
		}
		if !slices.Equal(services, want) {
			t.Errorf("the services are %q, want %q", services, want)
		}

		files, err := reflect(t, client, version, fileOfTest, 4)
		if err != nil || len(files) != 1 {
			t.Fatalf("%d files, %v; want 1", len(files), err)
		}
		var described descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(files[0], &described); err != nil {
			t.Fatal(err)
		}
		file, err := protodesc.NewFile(&described, new(protoregistry.Files))
		if err != nil {
			t.Fatal(err)
		}
		method := file.Services().ByName("Test").Methods().ByName("Unary")
		req, resp := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
		req.Set(method.Input().Fields().ByName("foo"), protoreflect.ValueOfString("from the schema"))
		if err := client.Call(t.Context(), "test.v1.Test", "Unary", req, resp); err != nil {
			t.Fatal(err)
		}
		if got := resp.Get(method.Output().Fields().ByName("foo")).String(); got != "from the schema" {
			t.Errorf("the method answered %q", got)
		}
		s.WaitFor("/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo")
	}
}

// TestReflectionFlag checks the flag and its default on both kinds of socket.
func TestReflectionFlag(t *testing.T) {
	for _, c := range []struct {
		name    string
		address string // empty for a unix socket
		args    []string
		want    codes.Code
	}{
		{"unix", "", nil, codes.OK},
		{"unix on", "", []string{"-reflection"}, codes.OK},
		{"unix off", "", []string{"-reflection=false"}, codes.Unimplemented},
		{"TCP", "tcp://127.0.0.1:0", []string{"-insecure"}, codes.Unimplemented},
		{"TCP on", "tcp://127.0.0.1:0", []string{"-insecure", "-reflection"}, codes.OK},
		{"TCP off", "tcp://127.0.0.1:0", []string{"-insecure", "-reflection=false"}, codes.Unimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := c.address
			if address == "" {
				address = proctest.Socket(t)
			}
			s := proctest.Start(t, server(append([]string{"-address", address}, c.args...)...))
			s.WaitFor("server start address=")
			_, address, _ = strings.Cut(s.Stderr(), "server start address=")
			address, _, _ = strings.Cut(address, "\n")
			client := dialStock(t, address)
			for _, version := range []string{"v1", "v1alpha"} {
				for range 2 { // the connection must stay open
					if _, err := reflect(t, client, version, listServices, 6); status.Code(err) != c.want {
						t.Errorf("%s answered %v, want %v", version, err, c.want)
					}
				}
			}
		})
	}
}
