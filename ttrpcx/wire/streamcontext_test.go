package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

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

// TestStreamContext shows that streams carry metadata and deadline to a stock server, and that nothing else changes.
func TestStreamContext(t *testing.T) {
	long := strings.Repeat("word ", 2000)
	for name, wrap := range map[string]func(context.Context, net.Conn) net.Conn{
		"plain":     StreamContext,
		"gathering": func(ctx context.Context, c net.Conn) net.Conn { return StreamContext(ctx, NewConn(c, Options{})) },
		"in bytes":  func(ctx context.Context, c net.Conn) net.Conn { return splitWrites{StreamContext(ctx, c)} },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 1)
			handler := &example{block: func(ctx context.Context) error {
				md, _ := ttrpc.GetMetadata(ctx)
				deadline, ok := ctx.Deadline()
				seen <- fmt.Sprint(md, ok && time.Until(deadline) > 0 && time.Until(deadline) <= time.Hour)
				return nil
			}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"name": {"koye", "yoke"}})
			c, s := unixPair(t)
			serve(t, s, handler)
			conn := ttrpc.NewClient(wrap(ctx, c))
			defer conn.Close()
			client := testv1.NewTestClient(conn)
			want := func(method, want string) {
				t.Helper()
				if got := <-seen; got != want {
					t.Errorf("the handler of %s got %s, want %s", method, got, want)
				}
			}

			for _, foo := range []string{"", long} {
				resp, err := client.Unary(context.Background(), &testv1.UnaryRequest{Foo: foo})
				if err != nil || resp.Foo != foo {
					t.Fatalf("Unary with %d bytes: got %d, %v", len(foo), len(resp.GetFoo()), err)
				}
				want("Unary", "map[] false")
			}
			for _, text := range []string{"", "a b", long} {
				split, err := client.Split(context.Background(), &testv1.SplitRequest{Text: text})
				if err != nil {
					t.Fatal(err)
				}
				want("Split", "map[name:[koye yoke]] true")
				for _, word := range strings.Fields(text) {
					if got, err := split.Recv(); err != nil || got.Word != word {
						t.Fatalf("Split: got %v, %v, want %s", got, err, word)
					}
				}
				if _, err := split.Recv(); !errors.Is(err, io.EOF) {
					t.Fatalf("Split after its end: %v", err)
				}
			}
			join, err := client.Join(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			want("Join", "map[name:[koye yoke]] true")
			for _, word := range []string{"a", long} {
				if err := join.Send(&testv1.JoinRequest{Word: word}); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := join.CloseAndRecv(); err != nil || got.Text != "a "+long {
				t.Errorf("Join: got %d bytes, %v", len(got.GetText()), err)
			}
			echo, err := client.Echo(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			want("Echo", "map[name:[koye yoke]] true")
			if err := echo.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := echo.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("Echo after its end: %v", err)
			}
		})
	}
}

// TestStreamContextWithoutRoom shows that a request is not sent that would end the connection.
func TestStreamContextWithoutRoom(t *testing.T) {
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"name": {"koye"}})
	out := newRecorder()
	h := Header{StreamID: 1, Type: TypeRequest, Flags: FlagRemoteClosed}
	_, err := StreamContext(ctx, out).Write(AppendFrame(nil, h, make([]byte, MaxPayload)))
	if _, ok := errors.AsType[*ttrpc.OversizedMessageErr](err); !ok {
		t.Errorf("a request without room for metadata: %v, want an OversizedMessageErr", err)
	}
}
