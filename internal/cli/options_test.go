package cli_test

import (
	"errors"
	"flag"
	"io"
	"os/user"
	"reflect"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx"
)

func parseServer(args ...string) (ttrpcx.ServerOptions, error) {
	return cli.ParseServer(cli.NewFlagSet("server", "Serves."), args, io.Discard, io.Discard)
}

func parseClient(args ...string) (*cli.Client, error) {
	return cli.ParseClient(cli.NewFlagSet("client", "Calls."), args, io.Discard, io.Discard)
}

func TestServerFlags(t *testing.T) {
	t.Setenv("TTRPC_ADDRESS", "/run/s")
	on, off := true, false
	defaults := ttrpcx.ServerOptions{
		Address: "/run/s", MaxCalls: 256, MaxUserCalls: 4096, MaxMemory: 128 << 20, MaxConnections: 16384,
		IOTimeout: 30 * time.Second, ShutdownTimeout: 10 * time.Second, MaxLogLines: 100,
	}
	const tcp = "tcp://localhost:1"
	for line, change := range map[string]func(*ttrpcx.ServerOptions){
		"":                               func(*ttrpcx.ServerOptions) {},
		"-address a":                     func(o *ttrpcx.ServerOptions) { o.Address = "a" },
		"-address " + tcp + " -insecure": func(o *ttrpcx.ServerOptions) { o.Address, o.Insecure = tcp, true },
		"-address " + tcp + " -tls-cert c -tls-key k -tls-ca a": func(o *ttrpcx.ServerOptions) {
			o.Address, o.TLS = tcp, ttrpcx.TLSFiles{Cert: "c", Key: "k", CA: "a"}
		},
		"-max-calls 1":                       func(o *ttrpcx.ServerOptions) { o.MaxCalls = 1 },
		"-max-user-calls 2":                  func(o *ttrpcx.ServerOptions) { o.MaxUserCalls = 2 },
		"-max-memory 2KiB":                   func(o *ttrpcx.ServerOptions) { o.MaxMemory = 2048 },
		"-max-connections 2":                 func(o *ttrpcx.ServerOptions) { o.MaxConnections = 2 },
		"-max-user-connections 3":            func(o *ttrpcx.ServerOptions) { o.MaxUserConnections = 3 },
		"-io-timeout 4s":                     func(o *ttrpcx.ServerOptions) { o.IOTimeout = 4 * time.Second },
		"-shutdown-timeout 5s":               func(o *ttrpcx.ServerOptions) { o.ShutdownTimeout = 5 * time.Second },
		"-call-timeout 6m":                   func(o *ttrpcx.ServerOptions) { o.CallTimeout = 6 * time.Minute },
		"-max-log-lines 7":                   func(o *ttrpcx.ServerOptions) { o.MaxLogLines = 7 },
		"-reflection":                        func(o *ttrpcx.ServerOptions) { o.Reflection = &on },
		"-reflection=false":                  func(o *ttrpcx.ServerOptions) { o.Reflection = &off },
		"-allow-uid 1 -allow-uid 4294967295": func(o *ttrpcx.ServerOptions) { o.Allow.UIDs = []uint32{1, 4294967295} },
		"-address vsock://any:1 -allow-cid 3": func(o *ttrpcx.ServerOptions) {
			o.Address, o.Allow.CIDs = "vsock://any:1", []uint32{3}
		},
		"-allow-gid 2": func(o *ttrpcx.ServerOptions) { o.Allow.GIDs = []uint32{2} },
	} {
		got, err := parseServer(strings.Fields(line)...)
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

// TestRefusals checks that each error names the flag or the value that is wrong.
func TestRefusals(t *testing.T) {
	t.Setenv("TTRPC_ADDRESS", "/run/s")
	for line, want := range map[string]string{
		"-allow-uid nobody-is-called-this": `no user is called "nobody-is-called-this"`,
		"-allow-gid nobody-is-called-this": `no group is called "nobody-is-called-this"`,
		"-allow-uid -1":                    "no user",
		"-allow-uid 4294967296":            "no user",
		"-allow-uid=":                      "no user",
		"-nonsense":                        "-nonsense",
		"stray":                            `"stray"`,
		"-log-format xml":                  "want one of text, json",
		"-address carrier-pigeon:home":     `unknown scheme "carrier-pigeon"`,
		"-address=":                        "address is empty",
		"-insecure":                        "-tls-cert, -tls-key, -tls-ca and -insecure are for TCP",
		"-address tcp://localhost:1":       "TCP needs -tls-cert, -tls-key and -tls-ca (or -insecure",
		"-address tcp://localhost:1 -insecure -allow-uid 0": "-allow-uid and -allow-gid are for unix sockets",
		"-address tcp://localhost:1 -tls-cert c":            "-tls-cert, -tls-key and -tls-ca must be given together",
	} {
		_, server := parseServer(strings.Fields(line)...)
		_, client := parseClient(strings.Fields(line)...)
		wantUsage(t, "server "+line, server, want)
		wantUsage(t, "client "+line, client, want)
	}
	for line, want := range map[string]string{
		"-max-calls 0":                      "above zero",
		"-max-connections -1":               "above zero",
		"-max-user-connections many":        "above zero",
		"-io-timeout 0s":                    "above zero",
		"-io-timeout 30":                    "such as 30s",
		"-shutdown-timeout -1s":             "above zero",
		"-call-timeout -1s":                 "-call-timeout is negative",
		"-reflection=maybe":                 "true or false",
		"-heap-floor 64MB":                  "64MiB",
		"-heap-floor -1":                    "-heap-floor",
		"-address unix-abstract:name":       "use unix:PATH",
		"-address hvsock:///run/vm:1":       "use unix:PATH_PORT",
		"-allow-cid host":                   `"host" is not a CID`,
		"-allow-cid 3":                      "-allow-cid is for vsock",
		"-address vsock://2:1 -allow-uid 0": "-allow-cid over vsock",
	} {
		_, err := parseServer(strings.Fields(line)...)
		wantUsage(t, "server "+line, err, want)
	}
	for line, want := range map[string]string{
		"-timeout 0s":            "-timeout is 0s",
		"-timeout -1s":           "-timeout is -1s",
		"-metadata koye":         "key=value",
		"-metadata =koye":        "key=value",
		"-metadata name=\xff":    "UTF-8",
		"-address systemd:":      "cannot dial",
		"-address vsock://any:1": "a client needs a CID",
		"-address unix:///" + strings.Repeat("x", 108): "at most",
	} {
		_, err := parseClient(strings.Fields(line)...)
		wantUsage(t, "client "+line, err, want)
	}
}

func wantUsage(t *testing.T, line string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(cli.Text(err), want) || cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("%s: error is %v, want %q and exit code 2", line, err, want)
	}
}

// TestUsage checks that the help shows defaults exactly once.
func TestUsage(t *testing.T) {
	var usage strings.Builder
	_, err := cli.ParseServer(cli.NewFlagSet("server", "Serves."), []string{"-h"}, &usage, io.Discard)
	if !errors.Is(err, flag.ErrHelp) || cli.ExitCode(err) != cli.ExitOK {
		t.Errorf("the error of -h is %v", err)
	}
	for _, want := range []string{
		"Usage: server", "Exit codes:", "(default 16384)", "(default three quarters of -max-connections)\n",
		"(default 30s)", "(default 10s)", "text, json (default text)",
	} {
		if strings.Count(usage.String(), want) != 1 {
			t.Errorf("usage has %q %d times:\n%s", want, strings.Count(usage.String(), want), usage.String())
		}
	}
}

func TestAllowFlagsTakeNames(t *testing.T) {
	u, err := user.LookupId("0")
	if err != nil {
		t.Skip(err)
	}
	g, err := user.LookupGroupId("0")
	if err != nil {
		t.Skip(err)
	}
	o, err := parseServer("-allow-uid", u.Username, "-allow-uid", "7", "-allow-gid", g.Name, "-allow-gid", "8")
	if err != nil {
		t.Fatal(err)
	}
	if want := (ttrpcx.Allow{UIDs: []uint32{0, 7}, GIDs: []uint32{0, 8}}); !reflect.DeepEqual(o.Allow, want) {
		t.Errorf("the flags allow %+v, want %+v", o.Allow, want)
	}
}
