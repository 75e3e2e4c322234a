package wire

import (
	"bytes"
	"encoding/base64"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// carriedMark ends the name of a method that StreamMethod has made. No name in protobuf has it.
const carriedMark = "\x00"

// StreamMethod returns the name to give to ttrpc.Client.NewStream in place of method, so that the stream carries
// metadata and a timeout, which ttrpc sends with unary calls only: https://github.com/containerd/ttrpc/issues/159. Zero
// means no timeout. The client's connection must be a ClientConn, which takes them out of the name and puts them where
// the server looks for them; with any other, the server does not know the method.
//
// The name is longer than what is sent. NewStream returns ResourceExhausted if it does not fit into a frame, and an
// error if metadata is not valid UTF-8.
func StreamMethod(method string, metadata []*ttrpc.KeyValue, timeout time.Duration) string {
	b, err := proto.Marshal(&ttrpc.Request{TimeoutNano: int64(timeout), Metadata: metadata})
	switch {
	case err != nil:
		return method + carriedMark + "\xff" // which NewStream cannot marshal either
	case len(b) == 0:
		return method
	}
	return method + carriedMark + base64.RawStdEncoding.EncodeToString(b)
}

// expand gives f, a request, what StreamMethod has put into the name of its method. The frame gets shorter by it.
func expand(f *frame) {
	if f.Flags&(FlagRemoteOpen|FlagRemoteClosed) == 0 {
		return // of a unary call
	}
	payload := f.payload()
	var r ttrpc.Request
	if !bytes.Contains(payload, []byte(carriedMark)) || proto.Unmarshal(payload, &r) != nil {
		return
	}
	method, text, ok := strings.Cut(r.Method, carriedMark)
	if !ok {
		return
	}
	carried, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || (proto.UnmarshalOptions{Merge: true}).Unmarshal(carried, &r) != nil {
		return
	}
	r.Method = method
	f.setRequest(&r)
}
