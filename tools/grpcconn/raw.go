package grpcconn

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// raw is an encoded message of any type in a form that ttrpc takes and gives back: to a type without fields, all fields
// are unknown ones, and those are kept as they are.
type raw = emptypb.Empty

// codec is gRPC's, because the messages are of all the kinds that it takes.
var codec = encoding.GetCodecV2(proto.Name)

func encode(m any) (*raw, error) {
	b, err := codec.Marshal(m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the request: %v", err)
	}
	defer b.Free()
	r := new(raw)
	r.ProtoReflect().SetUnknown(b.Materialize())
	return r, nil
}

func decode(r *raw, m any) error {
	if err := codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(r.ProtoReflect().GetUnknown())}, m); err != nil {
		return status.Errorf(codes.Internal, "decode the answer: %v", err)
	}
	return nil
}
