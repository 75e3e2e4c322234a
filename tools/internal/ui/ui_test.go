package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fullstorydev/grpcurl"

	"example.com/ttrpc-starter/internal/proctest"
	"example.com/ttrpc-starter/tools/grpcconn"
	"example.com/ttrpc-starter/tools/internal/ui"
)

// programs is the directory of the programs that the tests start.
var programs string

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	dir, err := os.MkdirTemp("", "")
	if err == nil {
		defer os.RemoveAll(dir)
		err = proctest.Build(dir, "../..", "./ttcurl", "./internal/stock")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	programs = dir
	code = m.Run()
}

// protos is the directory with the schema of the servers.
const protos = "../../../internal/testservice/proto"

// program returns a command that runs in the directory, with the tests' programs in PATH.
func program(dir, name string, args ...string) *exec.Cmd {
	path := proctest.Exe(programs, name)
	if name == "sh" {
		path = name
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+programs+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return cmd
}

// directory returns one for a server and its callers.
func directory(t *testing.T) string {
	return filepath.Dir(strings.TrimPrefix(proctest.Socket(t), "unix://"))
}

// address is that of the servers, for those who run in their directory.
const address = "unix:app.sock"

// ttcurl starts ttcurl -ui. It returns the URL that it prints, and what follows that.
func ttcurl(t *testing.T, dir string, args ...string) (url string, cmd *exec.Cmd, rest io.Reader) {
	t.Helper()
	cmd = program(dir, "ttcurl", append(args, "-ui", address)...)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = t.Output()
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r := bufio.NewReader(stdout)
	if url, err = r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(url, "\n"), cmd, r
}

// localSchema returns the flags with which ttcurl asks no server for its schema.
func localSchema(t *testing.T) []string {
	t.Helper()
	dir, err := filepath.Abs(protos)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-import-path", dir, "-proto", "test/v1/test.proto"}
}

// start starts a server and returns it, with the Options for it.
func start(t *testing.T) (*proctest.Process, ui.Options) {
	t.Helper()
	path := strings.TrimPrefix(proctest.Socket(t), "unix://")
	server := proctest.Start(t, exec.Command(proctest.Exe(programs, "stock"), path))
	server.WaitFor("serving")
	source, err := grpcurl.DescriptorSourceFromProtoFiles([]string{protos}, "test/v1/test.proto")
	if err != nil {
		t.Fatal(err)
	}
	return server, ui.Options{
		Conn: grpcconn.New(func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}),
		Source:  source,
		Target:  address,
		Command: []string{"ttcurl", address},
	}
}

// page is a page that is served.
type page struct {
	url  string
	stop context.CancelFunc
	rest <-chan string // what Serve has written after the URL, when it has returned
	err  <-chan error  // what it has returned
}

func serve(t *testing.T, o ui.Options) page {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	errs, rest := make(chan error, 1), make(chan string, 1)
	go func() {
		errs <- ui.Serve(ctx, o, w)
		w.Close()
	}()
	t.Cleanup(stop)
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(line, err, <-errs)
	}
	go func() {
		b, _ := io.ReadAll(lines)
		rest <- string(b)
	}()
	return page{strings.TrimSuffix(line, "\n"), stop, rest, errs}
}

// visitor is a browser that has opened the page.
type visitor struct {
	*http.Client
	t     *testing.T
	page  *url.URL
	token string
}

func visit(t *testing.T, address string) *visitor {
	t.Helper()
	page, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{&http.Client{Jar: jar}, t, page, ""}
	resp, body := v.do(v.request(t.Context(), http.MethodGet, "", ""))
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "ttcurl") {
		t.Fatal(resp.Status, body)
	}
	for _, c := range jar.Cookies(page) {
		v.token = c.Value
	}
	if v.token == "" {
		t.Fatal("the page has set no token")
	}
	return v
}

func (v *visitor) request(ctx context.Context, method, path, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, v.page.JoinPath(path).String(), strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Grpcui-Csrf-Token", v.token)
		req.Header.Set("Origin", "http://"+v.page.Host)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return req
}

// invoke is the request that the form makes. It has the given text in the field of the given name in its message.
func (v *visitor) invoke(ctx context.Context, method, field, text string) *http.Request {
	body, err := json.Marshal(map[string]any{"data": []any{map[string]string{field: text}}})
	if err != nil {
		v.t.Fatal(err)
	}
	return v.request(ctx, http.MethodPost, "invoke/test.v1.Test."+method, string(body))
}

func (v *visitor) do(req *http.Request) (*http.Response, string) {
	v.t.Helper()
	resp, err := v.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, string(body)
}

func TestURL(t *testing.T) {
	_, o := start(t)
	one, two := serve(t, o), serve(t, o)
	u, err := url.Parse(one.url)
	if err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || len(u.Path) < 20 {
		t.Error(one.url, err)
	}
	other, err := url.Parse(two.url)
	if err != nil || other.Path == u.Path || other.Port() == u.Port() {
		t.Errorf("%s and %s share a port or the secret", one.url, two.url)
	}
	visit(t, one.url)
	one.stop()
	if err := <-one.err; err != nil {
		t.Error(err)
	}
	if rest := <-one.rest; rest != "" {
		t.Errorf("it printed more than the URL: %q", rest)
	}
	if _, err := http.Get(one.url); err == nil {
		t.Error("it still answers")
	}
}

func TestGuard(t *testing.T) {
	_, o := start(t)
	v := visit(t, serve(t, o).url)
	const (
		method      = "invoke/test.v1.Test.Unary"
		unsupported = http.StatusUnsupportedMediaType
	)
	for name, test := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"the form":  {func(*http.Request) {}, http.StatusOK},
		"no secret": {func(r *http.Request) { r.URL.Path = "/" + method }, http.StatusNotFound},
		// The secret is base32, which has no 0.
		"a wrong secret": {func(r *http.Request) { r.URL.Path = "/0" + r.URL.Path[2:] }, http.StatusNotFound},
		"no token":       {func(r *http.Request) { r.Header.Del("X-Grpcui-Csrf-Token") }, http.StatusUnauthorized},
		"another token": {
			func(r *http.Request) { r.Header.Set("X-Grpcui-Csrf-Token", "x") }, http.StatusUnauthorized,
		},
		"a rebound name": {func(r *http.Request) { r.Host = "example.com:" + v.page.Port() }, http.StatusForbidden},
		"a wrong port":   {func(r *http.Request) { r.Host = "127.0.0.1" }, http.StatusForbidden},
		"another site": {
			func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden,
		},
		"another port": {
			func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, http.StatusForbidden,
		},
		"an HTML form":      {func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, unsupported},
		"not in the schema": {func(r *http.Request) { r.URL.Path += "X" }, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			req := v.invoke(t.Context(), "Unary", "foo", "Foo")
			test.change(req)
			resp, body := v.do(req)
			if resp.StatusCode != test.status {
				t.Errorf("%s %s", resp.Status, body)
			}
			if called := strings.Contains(body, `"foo": "Foo"`); called != (test.status == http.StatusOK) {
				t.Errorf("called: %v: %s", called, body)
			}
		})
	}
	// What a page may do that frames ours or reads it under another name.
	resp, body := v.do(v.request(t.Context(), http.MethodGet, "", ""))
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("CSP: %q", csp)
	}
	if strings.Contains(strings.ToLower(body), "grpcurl") || strings.Contains(body, "gRPC UI") {
		t.Error("the page speaks of grpcurl")
	}
	for host, status := range map[string]int{"localhost": http.StatusOK, "example.com": http.StatusForbidden} {
		req := v.request(t.Context(), http.MethodGet, "metadata", "")
		req.Host = net.JoinHostPort(host, v.page.Port())
		req.URL.RawQuery = "method=test.v1.Test.Unary"
		if resp, body := v.do(req); resp.StatusCode != status {
			t.Error(host, resp.Status, body)
		}
	}
}

// A call ends with the page that made it, and with Serve.
func TestCancel(t *testing.T) {
	for name, cancel := range map[string]func(closePage, stop context.CancelFunc){
		"page": func(closePage, _ context.CancelFunc) { closePage() },
		"stop": func(_, stop context.CancelFunc) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			server, o := start(t)
			p := serve(t, o)
			v := visit(t, p.url)
			ctx, closePage := context.WithCancel(t.Context())
			defer closePage()
			done := make(chan struct{})
			go func() {
				defer close(done)
				resp, err := v.Do(v.invoke(ctx, "Unary", "foo", "block"))
				if err == nil {
					resp.Body.Close()
				}
			}()
			server.WaitFor("blocks")
			cancel(closePage, p.stop)
			server.WaitFor("cancelled")
			<-done
		})
	}
}

func TestMaxMessages(t *testing.T) {
	for max, want := range map[int]struct {
		messages int
		status   string
	}{
		0:                         {ui.DefaultMaxMessages, "ResourceExhausted"},
		3:                         {3, "ResourceExhausted"},
		ui.DefaultMaxMessages + 1: {ui.DefaultMaxMessages + 1, ""},
	} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			_, o := start(t)
			o.MaxMessages = max
			v := visit(t, serve(t, o).url)
			resp, body := v.do(v.invoke(t.Context(), "Split", "text", strings.Repeat("x ", ui.DefaultMaxMessages+1)))
			var got struct {
				Responses []json.RawMessage
				Error     struct{ Name string }
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(resp.Status, body, err)
			}
			if len(got.Responses) != want.messages || got.Error.Name != want.status {
				t.Errorf("%d messages, %q: want %d, %q", len(got.Responses), got.Error.Name, want.messages, want.status)
			}
		})
	}
}

func TestNoMethods(t *testing.T) {
	_, o := start(t)
	var err error
	if o.Source, err = grpcurl.DescriptorSourceFromFileDescriptors(); err != nil {
		t.Fatal(err)
	}
	if err := ui.Serve(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "no method") {
		t.Error(err)
	}
}

// Ctrl-C is how one ends it, so that it is no failure.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("one process cannot interrupt another here")
	}
	dir := directory(t)
	url, cmd, rest := ttcurl(t, dir, localSchema(t)...) // asks no server before the first call
	visit(t, url)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rest); err != nil || len(b) > 0 {
		t.Errorf("it printed more than the URL: %q, %v", b, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A message to a method that takes no stream crashes a stock server.
func TestWrongKind(t *testing.T) {
	dir := directory(t)
	proctest.Start(t, program(dir, "stock", "-reflection", "app.sock")).WaitFor("serving")
	proto, err := os.ReadFile(filepath.Join(protos, "test/v1/test.proto"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(string(proto), "rpc Unary(", "rpc Unary(stream ", 1)
	if err := os.WriteFile(filepath.Join(dir, "wrong.proto"), []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, _ := ttcurl(t, dir, "-proto", "wrong.proto")
	v := visit(t, url)
	if _, body := v.do(v.invoke(t.Context(), "Unary", "foo", "Foo")); !strings.Contains(body, "client streaming") {
		t.Error(body)
	}
	if _, body := v.do(v.invoke(t.Context(), "Split", "text", "alive")); !strings.Contains(body, "alive") {
		t.Error(body)
	}
}

// The page says why a call of any kind cannot be made.
func TestNoServer(t *testing.T) {
	url, _, _ := ttcurl(t, directory(t), localSchema(t)...)
	v := visit(t, url)
	for method, field := range map[string]string{"Unary": "foo", "Split": "text", "Join": "word", "Echo": "message"} {
		if _, body := v.do(v.invoke(t.Context(), method, field, "x")); !strings.Contains(body, "no such file") {
			t.Errorf("%s: %s", method, body)
		}
	}
}

// What is wrong with a request stands on the page, which has no other way to show it.
func TestBadRequest(t *testing.T) {
	_, o := start(t)
	v := visit(t, serve(t, o).url)
	for request, want := range map[string]string{
		`{"fooo": "x"}`: "UnaryRequest has no known field named fooo",
		`{"foo": 1}`:    "string",
	} {
		request = `{"data":[` + request + `]}`
		resp, body := v.do(v.request(t.Context(), http.MethodPost, "invoke/test.v1.Test.Unary", request))
		if resp.StatusCode != http.StatusOK ||
			!strings.Contains(body, `"name":"InvalidArgument"`) || !strings.Contains(body, want) {
			t.Errorf("%s: %s %s", request, resp.Status, body)
		}
	}
}
