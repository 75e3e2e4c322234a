package ttrpcx_test

import (
	"runtime"
	"strings"
	"testing"

	"example.com/ttrpc-starter/ttrpcx"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///run/app.sock":     "unix:///run/app.sock",
		"unix:app.sock":            "unix:app.sock",
		"unix:/run/app.sock":       "unix:///run/app.sock",
		"/run/app.sock":            "unix:///run/app.sock",
		"app.sock":                 "unix:app.sock",
		"./tcp:1":                  "unix:./tcp:1",
		"unix:a:b":                 "unix:a:b",
		"unix:///run/a b%20.sock":  "unix:///run/a b%20.sock",
		"unix-abstract:app":        "unix-abstract:app",
		"tcp://localhost:80":       "tcp://localhost:80",
		"tcp://127.0.0.1:080":      "tcp://127.0.0.1:80",
		"tcp://[::1]:0":            "tcp://[::1]:0",
		"tcp://[fe80::1%eth0]:443": "tcp://[fe80::1%eth0]:443",
		"systemd:":                 "systemd:",
		"systemd:app":              "systemd:app",
		"vsock://3:1024":           "vsock://3:1024",
		"vsock://03:00":            "vsock://3:0",
		"vsock://any:1024":         "vsock://any:1024",
		"vsock://4294967295:1":     "vsock://any:1",
		"hvsock:///run/vm.sock:52": "hvsock:///run/vm.sock:52",
		"hvsock:///run/a:b:052":    "hvsock:///run/a:b:52",
	} {
		a, err := ttrpcx.ParseAddress(in)
		if err != nil {
			t.Errorf("ParseAddress(%q): %v", in, err)
		} else if a.String() != want {
			t.Errorf("ParseAddress(%q) is %q, want %q", in, a, want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	longest := 107
	if runtime.GOOS != "linux" && runtime.GOOS != "windows" {
		longest = 103
	}
	if _, err := ttrpcx.ParseAddress("/" + strings.Repeat("x", longest-1)); err != nil {
		t.Errorf("the longest path is refused: %v", err)
	}
	for in, want := range map[string]string{
		"":                                 "address is empty",
		"unix:":                            "path is empty",
		"unix://":                          "absolute path",
		"unix://app.sock":                  "absolute path",
		"unix:///run/":                     "names a directory",
		"unix:///a\x00b":                   "zero byte",
		"unix:@app":                        "unix-abstract:app",
		"@app":                             "unix-abstract:app",
		"/" + strings.Repeat("x", longest): "at most",
		"unix:" + strings.Repeat("x", 200): "at most",
		"unix-abstract:":                   "name is empty",
		"unix-abstract:" + strings.Repeat("x", 108): "at most",
		"tcp:localhost:80":                          "tcp://HOST:PORT",
		"tcp://localhost":                           "missing port",
		"tcp://localhost:":                          "port is missing",
		"tcp://:80":                                 "host is empty",
		"tcp://localhost:http":                      `port "http"`,
		"tcp://localhost:65536":                     `port "65536"`,
		"tcp://localhost:80/x":                      `port "80/x"`,
		"tcp://me@localhost:80":                     "not a host",
		"tcp://::1:80":                              "too many colons",
		"http://localhost":                          `unknown scheme "http"`,
		"vsock:3":                                   "vsock://CID:PORT",
		"vsock://3":                                 `port ""`,
		"vsock://:1":                                `CID ""`,
		"vsock://host:1":                            `CID "host"`,
		"vsock://-1:1":                              `CID "-1"`,
		"vsock://4294967296:1":                      "CID",
		"vsock://3:4294967295":                      `port "4294967295"`,
		"vsock://3:1:1":                             `port "1:1"`,
		"hvsock:/run/vm:1":                          "hvsock://PATH:PORT",
		"hvsock://run/vm:1":                         "absolute path",
		"hvsock:///run/vm":                          "path is empty",
		"hvsock:///run/vm:":                         `port ""`,
		"hvsock:///run/:1":                          "names a directory",
		"hvsock:///" + strings.Repeat("x", longest) + ":1": "at most",
	} {
		_, err := ttrpcx.ParseAddress(in)
		switch {
		case err == nil:
			t.Errorf("ParseAddress(%q) is accepted", in)
		case !strings.Contains(err.Error(), want):
			t.Errorf("ParseAddress(%q) says %q, want %q in it", in, err, want)
		case !strings.Contains(err.Error(), `address "`):
			t.Errorf("ParseAddress(%q) says %q, which does not name the address", in, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"unix:///a", "unix:a", "a", "unix:////a", "unix-abstract:a", "systemd:",
		"vsock://1:2", "vsock://any:0", "hvsock:///a:b:1",
		"tcp://a:1", "tcp://[::1]:1", "tcp://[]:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ttrpcx.ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ttrpcx.ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %q, which is parsed to %q, %v", s, a, again, err)
		}
	})
}
