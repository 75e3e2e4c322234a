package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// splitWrites writes its bytes one by one.
type splitWrites struct{ net.Conn }

func (c splitWrites) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// streams is a stub as protoc-gen-go-ttrpc makes it, whose streams carry the metadata and the deadline of their
// contexts.
type streams struct{ *ttrpc.Client }

func (c streams) NewStream(
	ctx context.Context, desc *ttrpc.StreamDesc, method string, req any,
) (ttrpc.ClientStream, error) {
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	var kvs []*ttrpc.KeyValue
	md, _ := ttrpc.GetMetadata(ctx)
	for key, values := range md {
		for _, value := range values {
			kvs = append(kvs, &ttrpc.KeyValue{Key: key, Value: value})
		}
	}
	return c.Client.NewStream(ctx, desc, "test.v1.Test", StreamMethod(method, kvs, timeout), req)
}

// TestStreamMethod shows that streams that are open at once carry metadata and deadlines of their own to a stock
// server, and that nothing else changes.
func TestStreamMethod(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"whole":    func(c net.Conn) net.Conn { return c },
		"in bytes": func(c net.Conn) net.Conn { return splitWrites{c} },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 1)
			c, s := unixPair(t)
			serve(t, s, blocking(func(ctx context.Context) error {
				md, _ := ttrpc.GetMetadata(ctx)
				deadline, ok := ctx.Deadline()
				seen <- fmt.Sprint(md, ok && time.Until(deadline) > 0 && time.Until(deadline) <= time.Hour)
				return nil
			}))
			conn := ttrpc.NewClient(wrap(newClientConn(t, c, ClientOptions{})))
			defer conn.Close()
			long := strings.Repeat("word ", 2000)
			open := func(
				ctx context.Context, desc *ttrpc.StreamDesc, method string, req any, want string,
			) ttrpc.ClientStream {
				t.Helper()
				stream, err := streams{conn}.NewStream(ctx, desc, method, req)
				if err != nil {
					t.Fatal(err)
				}
				if got := <-seen; got != want {
					t.Errorf("the handler of %s got %s, want %s", method, got, want)
				}
				return stream
			}
			down, up := &ttrpc.StreamDesc{StreamingServer: true}, &ttrpc.StreamDesc{StreamingClient: true}
			later, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			koye := ttrpc.WithMetadata(later, ttrpc.MD{"name": {"koye", "yoke"}})
			big := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"big": {long}})

			join := open(koye, up, "Join", nil, "map[name:[koye yoke]] true")
			other := open(big, up, "Join", nil, fmt.Sprintf("map[big:[%s]] false", long))
			plain := open(t.Context(), up, "Join", nil, "map[] false")
			for _, text := range []string{"", "a b", long} {
				split := open(koye, down, "Split", &testv1.SplitRequest{Text: text}, "map[name:[koye yoke]] true")
				for _, word := range strings.Fields(text) {
					var got testv1.SplitResponse
					if err := split.RecvMsg(&got); err != nil || got.Word != word {
						t.Fatalf("Split: got %v, %v, want %s", &got, err, word)
					}
				}
				if err := split.RecvMsg(new(testv1.SplitResponse)); !errors.Is(err, io.EOF) {
					t.Fatalf("Split after its end: %v", err)
				}
			}
			for _, stream := range []ttrpc.ClientStream{join, other, plain} {
				for _, word := range []string{"a", long} {
					if err := stream.SendMsg(&testv1.JoinRequest{Word: word}); err != nil {
						t.Fatal(err)
					}
				}
				var got testv1.JoinResponse
				if err := errors.Join(stream.CloseSend(), stream.RecvMsg(&got)); err != nil || got.Text != "a "+long {
					t.Errorf("Join: got %d bytes, %v", len(got.Text), err)
				}
			}
			request := &testv1.UnaryRequest{Foo: long, Bar: carriedMark}
			resp, err := testv1.NewTestClient(conn).Unary(t.Context(), request)
			if <-seen != "map[] false" || err != nil || resp.Foo != long || resp.Bar != carriedMark {
				t.Errorf("Unary: got %d bytes, %v", len(resp.GetFoo()), err)
			}
		})
	}
}

// TestStreamMethodWithoutRoom shows that a request that has no room for its metadata fails alone.
func TestStreamMethodWithoutRoom(t *testing.T) {
	c, s := unixPair(t)
	serve(t, s, blocking(func(context.Context) error { return status.Error(codes.NotFound, "") }))
	conn := ttrpc.NewClient(newClientConn(t, c, ClientOptions{}))
	defer conn.Close()
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"name": {"koye"}})
	text := strings.Repeat("x", MaxPayload-50)
	for want, ctx := range map[codes.Code]context.Context{codes.ResourceExhausted: ctx, codes.NotFound: t.Context()} {
		down := &ttrpc.StreamDesc{StreamingServer: true}
		stream, err := streams{conn}.NewStream(ctx, down, "Split", &testv1.SplitRequest{Text: text})
		if err == nil {
			err = stream.RecvMsg(new(testv1.SplitResponse))
		}
		if status.Code(err) != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

func TestStreamMethodRefusesInvalidText(t *testing.T) {
	c, _ := unixPair(t)
	conn := ttrpc.NewClient(newClientConn(t, c, ClientOptions{}))
	defer conn.Close()
	method := StreamMethod("Join", []*ttrpc.KeyValue{{Key: "name", Value: "\xff"}}, 0)
	_, err := conn.NewStream(t.Context(), &ttrpc.StreamDesc{StreamingClient: true}, "test.v1.Test", method, nil)
	if err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("got %v", err)
	}
}

// What is not StreamMethod's passes as it is.
func TestExpandLeavesOthersAlone(t *testing.T) {
	for _, rest := range []string{"", carriedMark, carriedMark + "%", carriedMark + "ag"} {
		method := "Join" + rest
		want := AppendFrame(nil, Header{StreamID: 1, Type: TypeRequest, Flags: FlagRemoteOpen},
			requestPayload(t, "test.v1.Test", method, []byte(carriedMark)))
		f, _, err := new(cutter).next(bytes.Clone(want))
		if err != nil {
			t.Fatal(err)
		}
		if expand(&f); method != "Join"+carriedMark && !bytes.Equal(f.tail, want) {
			t.Errorf("%q: got %q, want %q", method, f.tail, want)
		}
	}
}
