package ttrpcx_test

import (
	"strings"
	"testing"

	"example.com/ttrpc-starter/ttrpcx"
)

func TestValidate(t *testing.T) {
	files := ttrpcx.TLSFiles{Cert: "c", Key: "k", CA: "a"}
	for _, c := range []struct {
		address        string
		tls            ttrpcx.TLSFiles
		insecure       bool
		server, client string // parts of the errors, "" for none
	}{
		{"/run/s", ttrpcx.TLSFiles{}, false, "", ""},
		{"", ttrpcx.TLSFiles{}, false, "address is empty", "address is empty"},
		{"tcp://localhost:1", files, false, "", ""},
		{"tcp://localhost:1", ttrpcx.TLSFiles{}, true, "", ""},
		{"tcp://localhost:1", ttrpcx.TLSFiles{}, false, "TCP needs TLS.Cert", "TCP needs TLS.Cert"},
		{"tcp://localhost:1", files, true, "give one or the other", "give one or the other"},
		{"tcp://localhost:1", ttrpcx.TLSFiles{Cert: "c", Key: "k"}, false, "given together", "given together"},
		{"/run/s", files, false, "Insecure are for TCP", "Insecure are for TCP"},
		{"/run/s", ttrpcx.TLSFiles{}, true, "Insecure are for TCP", "Insecure are for TCP"},
		{"systemd:", ttrpcx.TLSFiles{}, false, "", "cannot dial"},
		{"systemd:", files, false, "", "cannot dial"},
		{"unix-abstract:a", ttrpcx.TLSFiles{}, false, "use unix:PATH", ""},
		{"vsock://3:1", ttrpcx.TLSFiles{}, false, "", ""},
		{"vsock://3:1", files, false, "Insecure are for TCP", "Insecure are for TCP"},
		{"vsock://any:1", ttrpcx.TLSFiles{}, false, "", "needs a CID"},
		{"hvsock:///run/s:1", ttrpcx.TLSFiles{}, false, "use unix:PATH_PORT", ""},
		{"hvsock:///run/s:1", ttrpcx.TLSFiles{}, true, "use unix:PATH_PORT", "Insecure are for TCP"},
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
	for _, c := range []struct{ address, xdg, want string }{
		{"tcp://localhost:1", "/run/user/1", "tcp://localhost:1"},
		{"", "/run/user/1", "unix:///run/user/1/app/app.sock"},
		{"", "relative", "unix://"},
		{"", "", "unix://"},
	} {
		t.Setenv("TTRPC_ADDRESS", c.address)
		t.Setenv("XDG_RUNTIME_DIR", c.xdg)
		got := ttrpcx.DefaultAddress("app")
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("with %+v the default is %s", c, got)
		}
		if strings.Contains(got, "relative") {
			t.Errorf("with %+v the default is %s", c, got)
		}
		if _, err := ttrpcx.ParseAddress(got); err != nil {
			t.Error(err)
		}
	}
}
