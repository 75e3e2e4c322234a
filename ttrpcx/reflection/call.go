package reflection

import (
	"errors"
	"io"
	"slices"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"example.com/ttrpc-starter/ttrpcx/internal/fields"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Field numbers of ServerReflectionResponse and of the messages in it. Its fields from 4 on are a oneof.
const (
	responseHost       protowire.Number = 1
	responseRequest    protowire.Number = 2
	responseFiles      protowire.Number = 4
	responseExtensions protowire.Number = 5
	responseServices   protowire.Number = 6
	responseError      protowire.Number = 7

	filesFile        protowire.Number = 1
	extensionsType   protowire.Number = 1
	extensionsNumber protowire.Number = 2
	servicesService  protowire.Number = 1
	serviceName      protowire.Number = 1
	errorCode        protowire.Number = 1
	errorMessage     protowire.Number = 2
)

// maxRequest bounds a request in bytes. A request contains at most two names, and its response contains the request.
const maxRequest = 16 << 10

// call is one stream of requests.
type call struct {
	*server
	sent map[string]bool // paths of the files that this call has sent
}

func (c *call) run(stream ttrpc.StreamServer) error {
	for {
		message := fields.Raw(nil)
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		resp, err := c.respond(message.ProtoReflect().GetUnknown())
		if err != nil {
			return err
		}
		if err := stream.SendMsg(fields.Raw(resp)); err != nil {
			return err
		}
	}
}

// respond returns the response to an encoded request. An error ends the call. A request for something that does not
// exist is not such an error: the response says so.
func (c *call) respond(encoded []byte) ([]byte, error) {
	if len(encoded) > maxRequest {
		return nil, status.Errorf(codes.InvalidArgument, "reflection request of %d bytes: want at most %d",
			len(encoded), maxRequest)
	}
	r, err := parseRequest(encoded)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "reflection request: %v", err)
	}
	resp := fields.AppendString(nil, responseHost, r.host)
	resp = fields.AppendBytes(resp, responseRequest, encoded)

	const overhead = 16 // more than the tag and the length of the answer take
	field, answer, err := c.answer(r, wire.MaxPayload-len(resp)-overhead)
	if st := status.Convert(err); err != nil {
		field = responseError
		answer = fields.AppendVarint(nil, errorCode, uint64(st.Code()))
		answer = fields.AppendString(answer, errorMessage, st.Message())
	} else if field == 0 {
		return nil, status.Error(codes.InvalidArgument, "reflection request: the message_request is missing or unknown")
	}
	return fields.AppendBytes(resp, field, answer), nil
}

// answer returns the answer, which has at most room bytes, and its field in the response. The field is 0 if the kind of
// request is unknown. The caller turns an error into an answer.
func (c *call) answer(r request, room int) (field protowire.Number, answer []byte, err error) {
	switch r.kind {
	case requestServices:
		for _, name := range c.services {
			answer = fields.AppendBytes(answer, servicesService, fields.AppendString(nil, serviceName, name))
		}
		return responseServices, answer, nil
	case requestFile:
		answer, err = c.fileByPath(r.name, room)
		return responseFiles, answer, err
	case requestSymbol:
		answer, err = c.fileBySymbol(r.name, room)
		return responseFiles, answer, err
	case requestExtension:
		answer, err = c.fileByExtension(r.name, r.number, room)
		return responseFiles, answer, err
	case requestExtensionsOf:
		answer, err = c.extensionsOf(r.name)
		return responseExtensions, answer, err
	}
	return 0, nil, nil
}

func (c *call) fileByPath(path string, room int) ([]byte, error) {
	file, err := c.files.FindFileByPath(path)
	if err != nil {
		file, err = c.more.FindFileByPath(path)
	}
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "no file %q is linked in", path)
	}
	return c.encode(file, room)
}

func (c *call) fileBySymbol(name string, room int) ([]byte, error) {
	d, err := c.find(name)
	if err != nil {
		return nil, unknownSymbol(name)
	}
	return c.encode(d.ParentFile(), room)
}

func unknownSymbol(name string) error {
	return status.Errorf(codes.NotFound, "no symbol %q is linked in", name)
}

func (c *call) fileByExtension(extended string, number int32, room int) ([]byte, error) {
	t, err := c.types.FindExtensionByNumber(protoreflect.FullName(extended), protoreflect.FieldNumber(number))
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "no extension %d of %q is linked in", number, extended)
	}
	return c.encode(t.TypeDescriptor().ParentFile(), room)
}

func (c *call) extensionsOf(extended string) ([]byte, error) {
	var numbers []protoreflect.FieldNumber
	c.types.RangeExtensionsByMessage(protoreflect.FullName(extended), func(t protoreflect.ExtensionType) bool {
		numbers = append(numbers, t.TypeDescriptor().Number())
		return true
	})
	if len(numbers) == 0 {
		if _, err := c.find(extended); err != nil {
			return nil, unknownSymbol(extended)
		}
	}
	slices.Sort(numbers)
	var packed []byte
	for _, n := range numbers {
		packed = protowire.AppendVarint(packed, uint64(n))
	}
	return fields.AppendBytes(fields.AppendString(nil, extensionsType, extended), extensionsNumber, packed), nil
}

// encode returns a FileDescriptorResponse with the file and all files that it imports, directly or indirectly. It omits
// imported files that this call has sent already, and those for which there is no room: clients then ask for them by
// name.
func (c *call) encode(file protoreflect.FileDescriptor, room int) ([]byte, error) {
	var answer []byte
	queue, queued := []protoreflect.FileDescriptor{file}, map[string]bool{file.Path(): true}
	for ; len(queue) > 0; queue = queue[1:] {
		next := queue[0]
		if len(answer) == 0 || !c.sent[next.Path()] { // the requested file itself is always sent
			b, err := c.encodeFile(next)
			if err != nil {
				return nil, status.Errorf(codes.Internal, "file %q: %v", next.Path(), err)
			}
			if protowire.SizeTag(filesFile)+protowire.SizeBytes(len(b)) > room-len(answer) {
				if len(answer) > 0 {
					break
				}
				return nil, status.Errorf(codes.ResourceExhausted,
					"file %q has %d bytes, too many for a ttrpc message: use the .proto files", next.Path(), len(b))
			}
			answer = fields.AppendBytes(answer, filesFile, b)
			c.sent[next.Path()] = true
		}
		for i := range next.Imports().Len() {
			imported := next.Imports().Get(i)
			if !imported.IsPlaceholder() && !queued[imported.Path()] {
				queue, queued[imported.Path()] = append(queue, imported.FileDescriptor), true
			}
		}
	}
	return answer, nil
}

// encodeFile encodes a file once, because that costs far more than a request for it. There are as many entries as the
// program has files.
func (s *server) encodeFile(file protoreflect.FileDescriptor) ([]byte, error) {
	if b, ok := s.encoded.Load(file.Path()); ok {
		return b.([]byte), nil
	}
	b, err := proto.Marshal(protodesc.ToFileDescriptorProto(file))
	if err == nil {
		s.encoded.Store(file.Path(), b)
	}
	return b, err
}
