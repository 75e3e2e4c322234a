// Echo calls all methods of all registered services over a unix socket, with filled messages, and prints for each
// feature how many methods there are and how the first one that failed did so, as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/ttrpc-starter/scratch/registry"
)

// variants is how often each method is called. Each time, another field of a oneof is set.
const variants = 6

type result struct {
	Calls  int
	Failed string
}

func main() {
	results := map[string]*result{}
	for _, s := range registry.Services {
		r := results[s.Feature]
		if r == nil {
			r = &result{}
			results[s.Feature] = r
		}
		if err := callAll(s, r); err != nil && r.Failed == "" {
			r.Failed = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}

func callAll(s registry.Service, r *result) error {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	s.Register(server)
	go func() { _ = server.Serve(context.Background(), l) }()
	defer server.Close()
	conn, err := net.Dial("unix", filepath.Join(dir, "s"))
	if err != nil {
		return err
	}
	c := ttrpc.NewClient(conn)
	defer c.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := reflect.ValueOf(s.Client(c))
	for i := range client.NumMethod() {
		r.Calls++
		for variant := range variants {
			if err := call(ctx, client.Method(i), variant); err != nil {
				if st, ok := status.FromError(err); ok {
					err = fmt.Errorf("%s: %s", st.Code(), st.Message())
				}
				return fmt.Errorf("%s: %w", client.Type().Method(i).Name, err)
			}
		}
	}
	return nil
}

var errOther = errors.New("another message came back")

// call makes one call of a client's method. Whether it is a stream shows in its type.
func call(ctx context.Context, method reflect.Value, variant int) error {
	args := []reflect.Value{reflect.ValueOf(ctx)}
	var req proto.Message
	if method.Type().NumIn() == 2 {
		req = filled(method.Type().In(1), variant)
		args = append(args, reflect.ValueOf(req))
	}
	out, err := invoke(method, args...)
	if err != nil {
		return err
	}
	if resp, ok := out.Interface().(proto.Message); ok {
		return same(req, resp)
	}

	recv := out.MethodByName("Recv")
	if send := out.MethodByName("Send"); send.IsValid() {
		for i := range registry.Repeats {
			req = filled(send.Type().In(0), variant+i)
			if _, err := invoke(send, reflect.ValueOf(req)); err != nil {
				return err
			}
			if recv.IsValid() {
				if err := receive(recv, req); err != nil {
					return err
				}
			}
		}
		if !recv.IsValid() {
			return receive(out.MethodByName("CloseAndRecv"), req)
		}
		if _, err := invoke(out.MethodByName("CloseSend")); err != nil {
			return err
		}
	} else {
		for range registry.Repeats {
			if err := receive(recv, req); err != nil {
				return err
			}
		}
	}
	if _, err := invoke(recv); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ends with %w", err)
	}
	return nil
}

func receive(recv reflect.Value, want proto.Message) error {
	got, err := invoke(recv)
	if err != nil {
		return err
	}
	return same(want, got.Interface().(proto.Message))
}

func same(want, got proto.Message) error {
	if !proto.Equal(want, got) {
		return errOther
	}
	return nil
}

// invoke calls a function whose last result is an error, and returns the first one.
func invoke(f reflect.Value, args ...reflect.Value) (reflect.Value, error) {
	out := f.Call(args)
	err, _ := out[len(out)-1].Interface().(error)
	return out[0], err
}
