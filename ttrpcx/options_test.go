package ttrpcx_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/ttrpcx"
)

func parseServerFlags(args ...string) (o ttrpcx.ServerOptions, err error) {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.RegisterFlags(flags)
	return o, flags.Parse(args)
}

func parseClientFlags(args ...string) (o ttrpcx.ClientOptions, err error) {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.RegisterFlags(flags)
	return o, flags.Parse(args)
}

func TestServerFlags(t *testing.T) {
	t.Setenv("TTRPC_ADDRESS", "/run/s")
	defaults := ttrpcx.ServerOptions{
		Address: "/run/s", MaxCalls: 256, MaxConnections: 16384, IOTimeout: 30 * time.Second, ShutdownTimeout: 10 * time.Second,
	}
	for line, change := range map[string]func(*ttrpcx.ServerOptions){
		"":                                   func(*ttrpcx.ServerOptions) {},
		"-address a":                         func(o *ttrpcx.ServerOptions) { o.Address = "a" },
		"-insecure":                          func(o *ttrpcx.ServerOptions) { o.Insecure = true },
		"-tls-cert c -tls-ca a":              func(o *ttrpcx.ServerOptions) { o.TLS = ttrpcx.TLSFiles{Cert: "c", CA: "a"} },
		"-tls-key k":                         func(o *ttrpcx.ServerOptions) { o.TLS.Key = "k" },
		"-max-calls 1":                       func(o *ttrpcx.ServerOptions) { o.MaxCalls = 1 },
		"-max-connections 2":                 func(o *ttrpcx.ServerOptions) { o.MaxConnections = 2 },
		"-max-user-connections 3":            func(o *ttrpcx.ServerOptions) { o.MaxUserConnections = 3 },
		"-io-timeout 4s":                     func(o *ttrpcx.ServerOptions) { o.IOTimeout = 4 * time.Second },
		"-shutdown-timeout 5ms":              func(o *ttrpcx.ServerOptions) { o.ShutdownTimeout = 5 * time.Millisecond },
		"-allow-uid 1 -allow-uid 4294967295": func(o *ttrpcx.ServerOptions) { o.Allow.UIDs = []uint32{1, 4294967295} },
		"-allow-gid 2":                       func(o *ttrpcx.ServerOptions) { o.Allow.GIDs = []uint32{2} },
	} {
		got, err := parseServerFlags(strings.Fields(line)...)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		want := defaults
		change(&want)
		got.Logger = nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: options are %+v, want %+v", line, got, want)
		}
	}
}

func TestFlagsRefuse(t *testing.T) {
	for line, want := range map[string]string{
		"-allow-uid nobody-is-called-this": `no user is called "nobody-is-called-this"`,
		"-allow-gid nobody-is-called-this": `no group is called "nobody-is-called-this"`,
		"-allow-uid -1":                    "no user",
		"-allow-uid 4294967296":            "no user",
		"-allow-uid=":                      "no user",
		"-max-calls 0":                     "above zero",
		"-max-connections -1":              "above zero",
		"-max-user-connections many":       "above zero",
		"-io-timeout 0s":                   "above zero",
		"-io-timeout 30":                   "such as 30s",
		"-shutdown-timeout -1s":            "above zero",
	} {
		_, err := parseServerFlags(strings.Fields(line)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q in it", line, err, want)
		}
	}
	if _, err := parseClientFlags("-allow-uid", "nobody-is-called-this"); err == nil {
		t.Error("the client takes a user who does not exist")
	}
}

// TestUsage wants each flag's default shown, once.
func TestUsage(t *testing.T) {
	var usage strings.Builder
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(&usage)
	new(ttrpcx.ServerOptions).RegisterFlags(flags)
	flags.PrintDefaults()
	for _, want := range []string{"(default 16384)", "(default three quarters of -max-connections)\n", "(default 30s)", "(default 10s)"} {
		if !strings.Contains(usage.String(), want) {
			t.Errorf("usage lacks %q:\n%s", want, usage.String())
		}
	}
}

func TestValidate(t *testing.T) {
	files := ttrpcx.TLSFiles{Cert: "c", Key: "k", CA: "a"}
	for _, c := range []struct {
		address        string
		tls            ttrpcx.TLSFiles
		insecure       bool
		server, client string // parts of the errors, "" for none
	}{
		{"/run/s", ttrpcx.TLSFiles{}, false, "", ""},
		{"", ttrpcx.TLSFiles{}, false, "", ""},
		{"tcp://localhost:1", files, false, "", ""},
		{"tcp://localhost:1", ttrpcx.TLSFiles{}, true, "", ""},
		{"tcp://localhost:1", ttrpcx.TLSFiles{}, false, "TCP needs -tls-cert", "TCP needs -tls-cert"},
		{"tcp://localhost:1", files, true, "give one or the other", "give one or the other"},
		{"tcp://localhost:1", ttrpcx.TLSFiles{Cert: "c", Key: "k"}, false, "given together", "given together"},
		{"/run/s", files, false, "TLS flags are for TCP", "TLS flags are for TCP"},
		{"/run/s", ttrpcx.TLSFiles{}, true, "TLS flags are for TCP", "TLS flags are for TCP"},
		{"systemd:", ttrpcx.TLSFiles{}, false, "", "cannot dial"},
		{"systemd:", files, false, "", "cannot dial"},
		{"unix-abstract:a", ttrpcx.TLSFiles{}, false, "use unix:PATH", ""},
		{"http://localhost", ttrpcx.TLSFiles{}, false, "unknown scheme", "unknown scheme"},
	} {
		server := ttrpcx.ServerOptions{Address: c.address, TLS: c.tls, Insecure: c.insecure}
		client := ttrpcx.ClientOptions{Address: c.address, TLS: c.tls, Insecure: c.insecure}
		switch err := server.Validate(); {
		case c.server != "":
			wantError(t, err, c.server)
			_, err = ttrpcx.Listen(t.Context(), server)
			wantError(t, err, c.server)
		case err != nil:
			t.Errorf("server %+v: %v", c, err)
		}
		switch err := client.Validate(); {
		case c.client != "":
			wantError(t, err, c.client)
			_, err = ttrpcx.Dial(t.Context(), client)
			wantError(t, err, c.client)
		case err != nil:
			t.Errorf("client %+v: %v", c, err)
		}
	}
}

func TestDefaultAddress(t *testing.T) {
	temporary := "unix://" + filepath.ToSlash(os.TempDir())
	for _, c := range []struct{ address, xdg, want string }{
		{"tcp://localhost:1", "/run/user/1", "tcp://localhost:1"},
		{"", "/run/user/1", "unix:///run/user/1/"},
		{"", "relative", temporary},
		{"", "", temporary},
	} {
		t.Setenv("TTRPC_ADDRESS", c.address)
		t.Setenv("XDG_RUNTIME_DIR", c.xdg)
		got := ttrpcx.DefaultAddress()
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("with %+v the default is %s", c, got)
		}
		if _, err := ttrpcx.ParseAddress(got); err != nil {
			t.Error(err)
		}
	}
}
