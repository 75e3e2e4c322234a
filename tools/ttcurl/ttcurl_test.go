package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

var update = flag.Bool("update", false, "write what the programs print into the scripts' files that cmp compares with")

var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	code := 1
	defer func() { os.Exit(code) }()
	var err error
	if bin, err = os.MkdirTemp("", ""); err == nil {
		defer os.RemoveAll(bin)
		err = errors.Join(
			proctest.Build(bin, "..", "./ttcurl", "./internal/stock"),
			proctest.Build(bin, "../..", "./internal/dev/certs"),
			proctest.BuildWith(
				"github.com/containerd/ttrpc", "v1.2.3", proctest.Exe(bin, "old"), "..", "./internal/stock"),
		)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	code = m.Run()
}

func ttcurl(args ...string) *exec.Cmd { return exec.Command(proctest.Exe(bin, "ttcurl"), args...) }

// stock starts the test server, and returns it and its socket.
func stock(t *testing.T, flags ...string) (*proctest.Process, string) {
	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	p := proctest.Start(t, exec.Command(proctest.Exe(bin, "stock"), append(flags, path)...))
	p.WaitFor("serving")
	return p, path
}

// TestScripts runs testdata. The scripts find servers at the addresses in the environment:
//
//	TTRPCX   a server of ttrpcx                STOCK    stock ttrpc, without reflection
//	REFLECT  stock ttrpc with reflection       TLS      a server of ttrpcx, with the files in $CERTS
//	PLAIN    a server of ttrpcx, over TCP      DEAD     a socket that nobody listens at
//	HTTP     a web server                      GRPC     a gRPC server
//	SILENT   a server that never answers       QUIET    the same over TCP
//	OLD      stock ttrpc of version 1.2.3      MUTE     stock ttrpc that never answers for unknown services
//	OTHER    stock ttrpc without services      BROKEN   one whose reflection fails
//
// SCHEMA is a protoset of the service that the ttrpc servers have, BIG a file with a request of over 4 MiB, ENDLESS one
// with the start of a longer one.
func TestScripts(t *testing.T) {
	env := servers(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, env...)
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

// exits runs a command that must end with the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("the exit code is %d, want %s", code, args[0])
	}
}

func servers(t *testing.T) []string {
	_, stockPath := stock(t)
	_, reflectPath := stock(t, "-reflection")
	certs := filepath.Join(t.TempDir(), "certs")
	if p := proctest.Run(t, exec.Command(proctest.Exe(bin, "certs"), certs)); p.ExitCode() != 0 {
		t.Fatal("no certificates")
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	files := ttrpcx.TLSFiles{Cert: file("server.pem"), Key: file("server-key.pem"), CA: file("ca.pem")}

	big := filepath.Join(t.TempDir(), "big.json")
	if err := os.WriteFile(big, []byte(`{"word":"`+strings.Repeat("x", 5<<20)+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	dead, deadPath := listen(t)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	web, webPath := listen(t)
	go http.Serve(web, nil)
	g, grpcPath := listen(t)
	server := grpc.NewServer()
	t.Cleanup(server.Stop)
	go server.Serve(g)
	_, silentPath := listen(t) // the kernel takes connections, and nobody else does
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { quiet.Close() })
	old := strings.TrimPrefix(proctest.Socket(t), "unix://")
	proctest.Start(t, exec.Command(proctest.Exe(bin, "old"), old)).WaitFor("serving")
	mute, mutePath := listen(t)
	serveTTRPC(t, muteListener{mute}, func(s *ttrpc.Server) { testv1.RegisterTestService(s, testservice.Service{}) })
	other, otherPath := listen(t)
	serveTTRPC(t, other, func(*ttrpc.Server) {})
	broken, brokenPath := listen(t)
	serveTTRPC(t, broken, func(s *ttrpc.Server) {
		fail := func(context.Context, ttrpc.StreamServer) (any, error) {
			return nil, status.Error(codes.Internal, "no schema today")
		}
		s.RegisterService("grpc.reflection.v1.ServerReflection", &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{
			"ServerReflectionInfo": {Handler: fail, StreamingClient: true, StreamingServer: true},
		}})
	})

	secure := serve(t, ttrpcx.ServerOptions{Address: "tcp://localhost:0", TLS: files})
	return []string{
		"TTRPCX=" + serve(t, ttrpcx.ServerOptions{Address: proctest.Socket(t)}),
		"PLAIN=" + serve(t, ttrpcx.ServerOptions{Address: "tcp://127.0.0.1:0", Insecure: true}),
		"TLS=tcp://localhost" + secure[strings.LastIndex(secure, ":"):],
		"CERTS=" + certs, "SCHEMA=" + protoset(t), "BIG=" + big,
		"STOCK=" + stockPath, "REFLECT=" + reflectPath, "DEAD=" + deadPath,
		"HTTP=" + webPath, "GRPC=" + grpcPath, "SILENT=" + silentPath, "QUIET=tcp://" + quiet.Addr().String(),
		"OLD=" + old, "MUTE=" + mutePath, "OTHER=" + otherPath, "BROKEN=" + brokenPath, "ENDLESS=" + endless(t),
	}
}

func serveTTRPC(t *testing.T, l net.Listener, register func(*ttrpc.Server)) {
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	register(server)
	t.Cleanup(func() { server.Close() })
	go server.Serve(context.Background(), l)
}

// muteListener loses requests for reflection.
type muteListener struct{ net.Listener }

func (l muteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		for {
			frame := make([]byte, wire.HeaderSize)
			_, err := io.ReadFull(c, frame)
			if h, ok := wire.ParseHeader(frame); ok && err == nil {
				frame = append(frame, make([]byte, h.Length)...)
				_, err = io.ReadFull(c, frame[wire.HeaderSize:])
			}
			if err == nil && !bytes.Contains(frame, []byte("grpc.reflection")) {
				_, err = w.Write(frame)
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
	}()
	return muteConn{c, r}, nil
}

type muteConn struct {
	net.Conn
	r io.Reader
}

func (c muteConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// endless writes a file that is longer than a message can be, and returns its path.
func endless(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "endless")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(`{"foo":"`)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for n := 0; n <= maxText && err == nil; n += len(chunk) {
		_, err = f.Write(chunk)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// protoset writes a protoset of the test service and returns its path.
func protoset(t *testing.T) string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{
		File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(testv1.File_test_v1_test_proto)},
	}
	path := filepath.Join(t.TempDir(), "schema.binpb")
	if b, err := proto.Marshal(set); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// listen listens at a socket of its own, and returns its path.
func listen(t testing.TB) (net.Listener, string) {
	t.Helper()
	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

// serve starts a server of ttrpcx, which runs until the test ends, and returns its address.
func serve(t testing.TB, options ttrpcx.ServerOptions) string {
	t.Helper()
	options.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	testv1.HandleTest(server, testservice.Service{})
	l, err := ttrpcx.Listen(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }()
	t.Cleanup(func() {
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.String()
}

// TestInterrupt shows that Ctrl-C cancels a call of each kind, also one that waits for its input.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent an interrupt there")
	}
	server, path := stock(t, "-reflection")
	seen := ""
	for method, field := range map[string]string{"Unary": "foo", "Split": "text", "Join": "word", "Echo": "message"} {
		p := proctest.Start(t, ttcurl("-d", `{"`+field+`":"block"}`, path, "test.v1.Test/"+method))
		server.WaitFor(seen + "blocks\n")
		p.Signal(os.Interrupt)
		if code := p.ExitCode(); code != 65 {
			t.Errorf("%s was interrupted and exited with %d, want 65", method, code)
		}
		seen += "blocks\ncancelled\n"
		server.WaitFor(seen)
	}
	for _, method := range []string{"Join", "Echo"} {
		cmd := ttcurl("-v", "-d", "@", path, "test.v1.Test/"+method)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		p := proctest.Start(t, cmd)
		p.WaitFor("Request metadata")
		p.Signal(os.Interrupt)
		if code := p.ExitCode(); code != 65 {
			t.Errorf("%s was interrupted while it read its input and exited with %d, want 65", method, code)
		}
	}
}

// TestAsTheyArrive shows that a message is printed before the next one is asked for, as text and as JSON.
func TestAsTheyArrive(t *testing.T) {
	_, path := stock(t, "-reflection")
	for name, flags := range map[string][]string{"plain": nil, "json": {"-json"}, "text": {"-format", "text"}} {
		t.Run(name, func(t *testing.T) {
			cmd := ttcurl(append(flags, "-d", "@", path, "test.v1.Test/Echo")...)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			read := bufio.NewReader(out)
			for range 3 {
				mark := rand.Text()
				message := `{"message":"` + mark + `"}`
				if name == "text" {
					message = `message:"` + mark + `"` + "\x1e"
				}
				if _, err := io.WriteString(in, message); err != nil {
					t.Fatal(err)
				}
				for got := ""; !strings.Contains(got, mark); {
					b, err := read.ReadByte()
					if err != nil {
						t.Fatal(err)
					}
					got += string(b)
				}
			}
			in.Close()
			io.Copy(io.Discard, read)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestServerEndsFirst shows that a call ends with its server's answer although the input goes on.
func TestServerEndsFirst(t *testing.T) {
	_, path := stock(t, "-reflection")
	cmd := ttcurl("-d", "@", path, "test.v1.Test/Echo")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, `{"message":"fail"}`); err != nil {
		t.Fatal(err)
	}
	if code := proctest.Start(t, cmd).ExitCode(); code != 64+9 {
		t.Errorf("the exit code is %d, want 73", code)
	}
}

// TestPageCommand shows that the page's command has the flags that ttcurl got, in a form that gives them again.
func TestPageCommand(t *testing.T) {
	const args = "-ui -proto a.proto -proto b.proto -use-reflection=false -allow-uid 1 -allow-uid 2 " +
		"-emit-defaults -expand-headers -H a:b s.sock"
	o, err := parse(strings.Fields(args), io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	const want = "ttcurl -allow-uid=1 -allow-uid=2 -emit-defaults=true -proto=a.proto -proto=b.proto " +
		"-use-reflection=false s.sock"
	if got := strings.Join(o.command, " "); got != want {
		t.Errorf("the command is\n%s, want\n%s", got, want)
	}
}

// TestWhoseSocket checks what is said where permission is denied. Its error is made up, because root gets none.
func TestWhoseSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{path: path + " is ", filepath.Join(dir, "a", "b"): dir + " is "} {
		err := explain(&options{address: address}, fmt.Errorf("connect: %w", fs.ErrPermission))
		owner := fmt.Sprintf("uid %d", os.Getuid())
		if got := err.Error(); !strings.Contains(got, want) ||
			runtime.GOOS != "windows" && !strings.Contains(got, owner) {
			t.Errorf("%s: said %q, want %q and the owner in it", address, got, want)
		}
	}
}
