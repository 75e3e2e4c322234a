package health_test

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/health"
)

// readSchema returns gRPC's health.proto, which the tests use for all messages.
var readSchema = sync.OnceValues(func() (protoreflect.FileDescriptor, error) {
	text, err := os.ReadFile("testdata/health.txtpb")
	if err != nil {
		return nil, err
	}
	file := new(descriptorpb.FileDescriptorProto)
	if err := prototext.Unmarshal(text, file); err != nil {
		return nil, err
	}
	return protodesc.NewFile(file, nil)
})

func schema(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	file, err := readSchema()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func message(t testing.TB, name protoreflect.Name, text string) *dynamicpb.Message {
	t.Helper()
	m := dynamicpb.NewMessage(schema(t).Messages().ByName(name))
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// running is a server and a client of it.
type running struct {
	*ttrpcx.Server
	client *ttrpc.Client
	stop   context.CancelFunc
	served chan error
}

func serve(t testing.TB, register ...func(*ttrpcx.Server)) *running {
	t.Helper()
	options := ttrpcx.ServerOptions{
		Address: proctest.Socket(t), ShutdownTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
	}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	testv1.HandleTest(server, testservice.Service{})
	for _, f := range register {
		f(server)
	}
	listener, err := ttrpcx.Listen(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Server: server, stop: stop, served: make(chan error, 1)}
	go func() { r.served <- server.Serve(ctx, listener) }()
	conn, err := ttrpcx.Dial(t.Context(), ttrpcx.ClientOptions{Address: options.Address})
	if err != nil {
		t.Fatal(err)
	}
	r.client = ttrpc.NewClient(conn)
	t.Cleanup(func() {
		_ = r.client.Close()
		stop()
		if err := <-r.served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// call makes a unary call and returns an error unless the answer is the wanted one, in text form.
func (r *running) call(t testing.TB, method, request, want string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kinds := map[string][2]protoreflect.Name{
		"Check": {"HealthCheckRequest", "HealthCheckResponse"}, "List": {"HealthListRequest", "HealthListResponse"},
	}[method]
	got := message(t, kinds[1], "")
	if err := r.client.Call(ctx, health.Name, method, message(t, kinds[0], request), got); err != nil {
		return err
	}
	if want := message(t, kinds[1], want); !proto.Equal(got, want) {
		t.Errorf("%s of %q is %v, want %v", method, request, got, want)
	}
	return nil
}

func (r *running) want(t testing.TB, method, request, want string) {
	t.Helper()
	if err := r.call(t, method, request, want); err != nil {
		t.Errorf("%s of %q: %v", method, request, err)
	}
}

// watch is a stream of statuses.
type watch struct {
	ttrpc.ClientStream
	t testing.TB
}

func (r *running) watch(t testing.TB, service string) *watch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	request := message(t, "HealthCheckRequest", "")
	request.Set(request.Descriptor().Fields().Get(0), protoreflect.ValueOfString(service))
	s, err := r.client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, health.Name, "Watch", request)
	if err != nil {
		t.Fatal(err)
	}
	return &watch{s, t}
}

func (w *watch) want(status string) {
	w.t.Helper()
	got := message(w.t, "HealthCheckResponse", "")
	if err := w.RecvMsg(got); err != nil {
		w.t.Fatalf("no status, want %s: %v", status, err)
	}
	if want := message(w.t, "HealthCheckResponse", "status: "+status); !proto.Equal(got, want) {
		w.t.Fatalf("the status is %v, want %s", got, status)
	}
}

func TestCheck(t *testing.T) {
	r := serve(t)
	r.want(t, "Check", "", "status: SERVING")
	r.want(t, "Check", `service: "test.v1.Test"`, "status: SERVING")
	r.want(t, "List", "", `statuses { key: "" value { status: SERVING } }
		statuses { key: "test.v1.Test" value { status: SERVING } }`)
	r.Health.Set("test.v1.Test", health.NotServing)
	r.Health.Set("later", health.Unknown)
	r.want(t, "Check", "", "status: SERVING")
	r.want(t, "Check", `service: "test.v1.Test"`, "status: NOT_SERVING")
	r.want(t, "Check", `service: "later"`, "")
	r.want(t, "List", "", `statuses { key: "" value { status: SERVING } } statuses { key: "later" value {} }
		statuses { key: "test.v1.Test" value { status: NOT_SERVING } }`)
	for _, service := range []string{"test.v1.Tes", "test", "later ", health.Name} {
		err := r.call(t, "Check", `service: "`+service+`"`, "")
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `"`+service+`"`) {
			t.Errorf("Check of %q: %v, want NotFound with its name", service, err)
		}
	}
}

func TestWatch(t *testing.T) {
	r := serve(t)
	all, later := r.watch(t, ""), r.watch(t, "later")
	all.want("SERVING")
	later.want("SERVICE_UNKNOWN")
	r.Health.Set("later", health.Serving)
	later.want("SERVING")
	r.Health.Set("later", health.NotServing)
	later.want("NOT_SERVING")
	r.Health.Set("", health.NotServing) // what was not watched has sent nothing meanwhile
	all.want("NOT_SERVING")
}

// A slow client gets the last status, and not all that were in between.
func TestWatchSlowly(t *testing.T) {
	r := serve(t)
	w := r.watch(t, "busy")
	w.want("SERVICE_UNKNOWN")
	for range 10000 {
		r.Health.Set("busy", health.NotServing)
		r.Health.Set("busy", health.Serving)
	}
	r.Health.Set("busy", health.Unknown)
	for n := 0; ; n++ {
		got := message(t, "HealthCheckResponse", "")
		if err := w.RecvMsg(got); err != nil {
			t.Fatalf("after %d statuses: %v", n, err)
		}
		if proto.Equal(got, message(t, "HealthCheckResponse", "")) {
			return
		}
	}
}

// A stop is told to all who watch, and does not wait for them.
func TestWatchStop(t *testing.T) {
	r := serve(t)
	watches := []*watch{r.watch(t, ""), r.watch(t, "test.v1.Test"), r.watch(t, "unknown")}
	watches[0].want("SERVING")
	watches[1].want("SERVING")
	watches[2].want("SERVICE_UNKNOWN")
	r.stop()
	for i, w := range watches {
		if i < 2 {
			w.want("NOT_SERVING")
		}
		err := w.RecvMsg(message(t, "HealthCheckResponse", ""))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "server is shutting down") {
			t.Errorf("the watch ended with %v, want Unavailable because of the stop", err)
		}
	}
	select {
	case err := <-r.served:
		r.served <- err // for the cleanup
	case <-time.After(30 * time.Second): // half of the ShutdownTimeout
		t.Error("the stop waits for those who watch")
	}
	r.Health.Set("", health.Serving) // has no effect any more
}

// The handler of a Watch ends when its caller leaves, because nobody else could end it.
func TestWatchLeave(t *testing.T) {
	ended := make(chan struct{})
	r := serve(t, func(s *ttrpcx.Server) {
		desc := s.Health.Services()[health.Name]
		watch := desc.Streams["Watch"]
		handler := watch.Handler
		watch.Handler = func(ctx context.Context, stream ttrpc.StreamServer) (any, error) {
			defer close(ended)
			return handler(ctx, stream)
		}
		desc.Streams["Watch"] = watch
		s.RegisterService(health.Name, desc) // its own, which takes the place of the other
	})
	r.watch(t, "").want("SERVING")
	if err := r.client.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the handler goes on after its caller has left")
	}
}

func TestBadRequest(t *testing.T) {
	r := serve(t)
	bad := message(t, "HealthCheckRequest", "")
	bad.SetUnknown(protoreflect.RawFields("\x0a\x01\xff")) // field 1, which is not UTF-8
	err := r.client.Call(t.Context(), health.Name, "Check", bad, message(t, "HealthCheckResponse", ""))
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "health request") {
		t.Errorf("Check: %v, want InvalidArgument", err)
	}
	s, err := r.client.NewStream(t.Context(), &ttrpc.StreamDesc{StreamingServer: true}, health.Name, "Watch", bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(message(t, "HealthCheckResponse", "")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("Watch: %v, want InvalidArgument", err)
	}
	r.want(t, "Check", "", "status: SERVING")
}

// TestFile compares the package's own declarations with gRPC's.
func TestFile(t *testing.T) {
	got, want := protodesc.ToFileDescriptorProto(health.File()), protodesc.ToFileDescriptorProto(schema(t))
	if !proto.Equal(got, want) {
		t.Errorf("the declarations are %v, want %v", got, want)
	}
}
