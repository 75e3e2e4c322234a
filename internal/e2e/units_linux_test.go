package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/internal/proctest"
)

// units returns the texts of the units for systemd, by name. In place of the installed server, they start the test's.
func units(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range []string{cli.App + ".socket", cli.App + ".service"} {
		unit, err := os.ReadFile(filepath.Join("../../docs/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = strings.ReplaceAll(string(unit), "/usr/local/bin/"+cli.App, server().Path)
	}
	return texts
}

// TestUnits has systemd check the units.
func TestUnits(t *testing.T) {
	analyze := proctest.Program(t, "systemd-analyze")
	dir, args := t.TempDir(), []string{"verify", "--man=no"}
	for name, text := range units(t) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, filepath.Join(dir, name))
	}
	// It warns of unknown settings and exits with 0. It also warns of the machine's own units.
	out, err := exec.Command(analyze, args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), cli.App) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestUnitStarts runs the service's command as systemd does. The server must know its flags.
func TestUnitStarts(t *testing.T) {
	for line := range strings.Lines(units(t)[cli.App+".service"]) {
		command, ok := strings.CutPrefix(line, "ExecStart=")
		if !ok {
			continue
		}
		if !strings.HasPrefix(command, server().Path) {
			t.Fatalf("the service starts %s, want /usr/local/bin/%s", command, cli.App)
		}
		socket, address := listen(t)
		cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec "+strings.ReplaceAll(command, " users", " 0"))
		cmd.ExtraFiles = []*os.File{socket}
		proctest.Start(t, cmd).WaitFor(`"server start"`)
		if p := proctest.Run(t, client("-address", address, "-all")); p.ExitCode() != 0 {
			t.Errorf("the client says %q", p.Stderr())
		}
		return
	}
	t.Error("the service has no ExecStart=")
}

// listen returns the descriptor of a listening unix socket, to pass to another process, and its address.
func listen(t *testing.T) (*os.File, string) {
	t.Helper()
	address := proctest.Socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: strings.TrimPrefix(address, "unix://"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, address
}
