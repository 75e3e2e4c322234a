// Package containerd_test calls containerd's ttrpc services with ttcurl and containerd's own .proto files.
package containerd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	_ "github.com/containerd/cgroups/v3/cgroup1/stats" // a part of the recipe
	eventtypes "github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	streaming "github.com/containerd/containerd/api/services/streaming/v1"
	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"example.com/ttrpc-starter/internal/proctest"
)

var (
	programs string // the directory that ttcurl is built into
	protos   string // the directory of containerd's .proto files
)

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	err := setUp()
	defer os.RemoveAll(programs)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	code = m.Run()
}

func setUp() error {
	var err error
	if programs, err = os.MkdirTemp("", ""); err != nil {
		return err
	}
	if err := proctest.Build(programs, "../..", "./ttcurl"); err != nil {
		return err
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/containerd/containerd/api").Output()
	protos = strings.TrimSpace(string(dir))
	return err
}

// schema are the flags for some of containerd's .proto files.
func schema(names ...string) []string {
	flags := []string{"-import-path", protos}
	for _, name := range names {
		flags = append(flags, "-proto", name)
	}
	return flags
}

func command(flags []string, args ...string) *exec.Cmd {
	return exec.Command(proctest.Exe(programs, "ttcurl"), append(slices.Clip(flags), args...)...)
}

// ttcurl runs ttcurl and returns what it has printed. want is its exit code.
func ttcurl(t *testing.T, want int, flags []string, args ...string) (stdout, stderr string) {
	t.Helper()
	p := proctest.Run(t, command(flags, args...))
	if code := p.ExitCode(); code != want {
		t.Errorf("ttcurl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, p.Stdout(), p.Stderr())
	}
	return p.Stdout(), p.Stderr()
}

// service is a server with containerd's own code, which knows of each service what a test asks.
type service struct {
	task.TTRPCTaskService
	forwarded chan *events.ForwardRequest
}

func (s *service) Forward(ctx context.Context, req *events.ForwardRequest) (*emptypb.Empty, error) {
	if ns, _ := ttrpc.GetMetadataValue(ctx, "containerd-namespace-ttrpc"); ns != "test" {
		return nil, status.Errorf(codes.FailedPrecondition, "namespace %q", ns)
	}
	s.forwarded <- req
	return new(emptypb.Empty), nil
}

func (*service) State(_ context.Context, req *task.StateRequest) (*task.StateResponse, error) {
	if req.GetID() != "demo" {
		return nil, status.Errorf(codes.NotFound, "no container %s", req.GetID())
	}
	zero := new(timestamppb.Timestamp)
	return &task.StateResponse{ID: "demo", Pid: 7, Status: tasktypes.Status_RUNNING, ExitedAt: zero}, nil
}

func (*service) Stream(_ context.Context, stream streaming.TTRPCStreaming_StreamServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// eventFiles have Forward and the event that it is sent.
var eventFiles = []string{"services/ttrpc/events/v1/events.proto", "events/task.proto"}

const (
	forward = "containerd.services.events.ttrpc.v1.Events/Forward"
	stream  = "containerd.services.streaming.v1.Streaming/Stream"
	state   = "containerd.task.v2.Task/State"
)

// event returns a request of Forward. The type is as containerd's own programs write it: without a host.
func event(topic string) string {
	return `{"envelope": {"timestamp": "2026-01-02T03:04:05Z", "namespace": "test", "topic": "` + topic + `",
		"event": {"@type": "containerd.events.TaskOOM", "container_id": "demo"}}}`
}

func TestServices(t *testing.T) {
	s := &service{forwarded: make(chan *events.ForwardRequest, 1)}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	events.RegisterTTRPCEventsService(server, s)
	streaming.RegisterTTRPCStreamingService(server, s)
	task.RegisterTTRPCTaskService(server, s)
	address := proctest.Socket(t)
	l, err := net.Listen("unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(t.Context(), l)
	t.Cleanup(func() { server.Close() })

	t.Run("Forward", func(t *testing.T) {
		flags := schema(eventFiles...)
		_, stderr := ttcurl(t, 64+int(codes.FailedPrecondition), flags, address, forward, "-d", event("/hello"))
		if !strings.Contains(stderr, `namespace ""`) {
			t.Error(stderr)
		}
		namespace := "containerd-namespace-ttrpc: test"
		if out, _ := ttcurl(t, 0, flags, address, forward, "-d", event("/hello"), "-H", namespace); out != "{}\n" {
			t.Error(out)
		}
		got, err := typeurl.UnmarshalAny((<-s.forwarded).GetEnvelope().GetEvent())
		if err != nil {
			t.Fatal(err)
		}
		if oom, ok := got.(*eventtypes.TaskOOM); !ok || oom.GetContainerID() != "demo" {
			t.Errorf("%T %v", got, got)
		}
	})
	t.Run("State", func(t *testing.T) {
		flags := schema("runtime/task/v2/shim.proto")
		out, _ := ttcurl(t, 0, flags, address, state, "-d", `{"id": "demo"}`)
		want := `{"id":"demo","pid":7,"status":"RUNNING","exitedAt":"1970-01-01T00:00:00Z"}`
		if compact(t, out) != want {
			t.Errorf("%s, want %s", out, want)
		}
		_, stderr := ttcurl(t, 64+int(codes.NotFound), flags, address, state, "-d", `{"id": "x"}`)
		if !strings.Contains(stderr, "no container x") {
			t.Error(stderr)
		}
	})
	t.Run("Stream", func(t *testing.T) {
		flags := schema("services/streaming/v1/streaming.proto")
		messages := []string{
			`{"@type":"containerd.services.streaming.v1.StreamInit","id":"one"}`,
			`{"@type":"containerd.services.streaming.v1.StreamInit","id":"two"}`,
		}
		out, stderr := ttcurl(t, 0, flags, address, stream, "-d", strings.Join(messages, " "))
		if compact(t, out) != strings.Join(messages, "") {
			t.Error(out)
		}
		if !strings.Contains(stderr, "may crash it") { // the server has no reflection to ask for the method's kind
			t.Error(stderr)
		}
	})
	t.Run("no schema", func(t *testing.T) {
		if _, stderr := ttcurl(t, 1, nil, address, "list"); !strings.Contains(stderr, "-proto") {
			t.Error(stderr)
		}
	})
}

// recipe returns the commands of the recipe in one of the manuals.
func recipe(t *testing.T, manual string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../docs", manual))
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)\n## [^\n]+: containerd\n.*?\n## `).FindString(string(text))
	var commands strings.Builder
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
		commands.WriteString(block[1])
	}
	return commands.String()
}

func TestRecipeInJapanese(t *testing.T) {
	if got, want := recipe(t, "ttcurl.ja.md"), recipe(t, "ttcurl.md"); got != want || got == "" {
		t.Errorf("the recipe's commands are\n%s, want those of the English page:\n%s", got, want)
	}
}

// compact returns JSON values without the white space that ttcurl puts between and into them.
func compact(t *testing.T, values string) string {
	t.Helper()
	var out bytes.Buffer
	for d := json.NewDecoder(strings.NewReader(values)); ; {
		var value json.RawMessage
		err := d.Decode(&value)
		if errors.Is(err, io.EOF) {
			return out.String()
		}
		if err == nil {
			err = json.Compact(&out, value)
		}
		if err != nil {
			t.Fatal(err, values)
		}
	}
}
