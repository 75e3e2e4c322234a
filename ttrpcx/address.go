package ttrpcx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Address is where a server listens or a client dials. ParseAddress returns one. The zero Address is not valid.
type Address struct {
	scheme scheme
	rest   string // the path, the name, host:port, CID:port, or path:port
}

type scheme string

const (
	schemeUnix     scheme = "unix"
	schemeAbstract scheme = "unix-abstract"
	schemeTCP      scheme = "tcp"
	schemeSystemd  scheme = "systemd"
	schemeVsock    scheme = "vsock"
	schemeHvsock   scheme = "hvsock"
)

// DefaultAddress returns the address that the server and the client of the application called app use if they are given
// none. It is $TTRPC_ADDRESS, if set. Otherwise it is a socket in a directory that only the user can access: the first
// one below whose path is not too long for a socket. app must be a valid file name. DefaultAddress creates nothing.
//
//	$XDG_RUNTIME_DIR/app
//	/run/app              for root, on Linux
//	/run/user/uid/app     for others, on Linux, if there is a /run/user/uid
//	~/.cache/app          as os.UserCacheDir has it, if the home directory is the user's own
//	/tmp/app-uid          as os.TempDir has it; any other user can make this directory first and keep the server out
func DefaultAddress(app string) string {
	if a := os.Getenv("TTRPC_ADDRESS"); a != "" {
		return a
	}
	path := ""
	for _, dir := range defaultDirs(app) {
		path = filepath.ToSlash(filepath.Join(dir, app+".sock"))
		if len(path) < unixPathLimit() {
			break
		}
	}
	return "unix://" + path
}

func defaultDirs(app string) (dirs []string) {
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) { // XDG Base Directory says to ignore relative paths
		dirs = append(dirs, filepath.Join(d, app))
	}
	uid := os.Getuid()
	if run := "/run/user/" + strconv.Itoa(uid); runtime.GOOS == "linux" && uid == 0 {
		dirs = append(dirs, "/run/"+app)
	} else if runtime.GOOS == "linux" && ownDir(run) {
		dirs = append(dirs, filepath.Join(run, app))
	}
	if home, err := os.UserHomeDir(); err == nil && ownDir(home) {
		if d, err := os.UserCacheDir(); err == nil {
			dirs = append(dirs, filepath.Join(d, app))
		}
	}
	return append(dirs, filepath.Join(os.TempDir(), app+"-"+strconv.Itoa(uid)))
}

func ownDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() && owner(info) == uint32(os.Getuid())
}

// ParseAddress parses an address in one of these forms:
//
//	unix:///run/app/app.sock   a unix socket, absolute path
//	unix:app.sock              a unix socket, relative to the working directory
//	/run/app/app.sock          either of these without the scheme
//	unix-abstract:name         a socket in Linux's abstract namespace; clients only, because any user can listen there
//	tcp://host:port            TCP, with TLS unless it is turned off; with port 0, a server takes any free port
//	systemd: or systemd:name   the socket that systemd passes; for servers only. The name is FileDescriptorName= of
//	                           systemd.socket(5). It is needed if systemd passes more than one socket.
//	vsock://3:1024             vsock(7) to the virtual machine with that CID (2 is its host). vsock://any:1024 is for
//	                           servers only, and port 0 as on TCP. Linux only.
//	hvsock:///run/vm.sock:1024 a port of a virtual machine of Firecracker or Cloud Hypervisor, whose unix socket on
//	                           the host this is; for clients only. The other way round, the guest's connections to
//	                           port 1024 arrive at the unix socket /run/vm.sock_1024.
//
// Paths and names are used unchanged: no character can be escaped.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, errors.New("the address is empty: want unix:PATH, a path or tcp://HOST:PORT")
	}
	prefix, rest, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(prefix, `/\.`) || len(prefix) == 1 { // a bare path; one letter is a Windows drive
		return parseUnix(s)
	}
	switch scheme(prefix) {
	case schemeUnix:
		if path, ok := strings.CutPrefix(rest, "//"); ok {
			if !filepath.IsAbs(path) {
				return Address{}, errors.New("unix:// needs an absolute path; unix:PATH takes a relative one")
			}
			return parseUnix(path)
		}
		return parseUnix(rest)
	case schemeAbstract:
		if limit := unixPathLimit(); rest == "" {
			return Address{}, errors.New("the name is empty")
		} else if len(rest) >= limit {
			return Address{}, fmt.Errorf("the name has %d bytes; an abstract socket's name has at most %d",
				len(rest), limit-1)
		}
		return Address{schemeAbstract, rest}, nil
	case schemeTCP:
		hostport, ok := strings.CutPrefix(rest, "//")
		if !ok {
			return Address{}, errors.New("want tcp://HOST:PORT")
		}
		return parseTCP(hostport)
	case schemeSystemd:
		return Address{schemeSystemd, rest}, nil
	case schemeVsock, schemeHvsock:
		name, ok := strings.CutPrefix(rest, "//")
		if !ok {
			return Address{}, errors.New("want vsock://CID:PORT or hvsock://PATH:PORT")
		} else if prefix == "hvsock" {
			return parseHvsock(name)
		}
		a, err := parseVsock(name)
		return Address{schemeVsock, a.String()}, err
	}
	return Address{}, fmt.Errorf(
		"unknown scheme %q: want unix, unix-abstract, tcp, systemd, vsock or hvsock (for a file of that name: ./%s)",
		prefix, s)
}

func parseUnix(path string) (Address, error) {
	switch limit := unixPathLimit(); {
	case path == "":
		return Address{}, errors.New("the path is empty")
	case path[0] == '@':
		return Address{}, fmt.Errorf(
			"a path that starts with @ would mean an abstract socket: write ./%s or unix-abstract:%s", path, path[1:])
	case strings.ContainsRune(path, 0):
		return Address{}, errors.New("the path contains a zero byte")
	case strings.HasSuffix(path, "/"):
		return Address{}, errors.New("the path names a directory: add the socket's name")
	case len(path) >= limit:
		return Address{}, fmt.Errorf("the path has %d bytes; a unix socket's path has at most %d", len(path), limit-1)
	}
	return Address{schemeUnix, path}, nil
}

func parseTCP(hostport string) (Address, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return Address{}, fmt.Errorf("want tcp://HOST:PORT: %w", err)
	}
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case host == "":
		return Address{}, errors.New(
			"the host is empty: name one, such as localhost (0.0.0.0 and [::] mean all addresses of this machine)")
	case strings.ContainsAny(host, "/@?# \t\r\n\x00"):
		return Address{}, fmt.Errorf("%q is not a host", host)
	case port == "":
		return Address{}, errors.New("the port is missing: want tcp://HOST:PORT")
	case err != nil:
		return Address{}, fmt.Errorf("port %q is not a number from 0 to 65535", port)
	default:
		return Address{schemeTCP, net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
	}
}

// unixPathLimit returns the size in bytes of sockaddr_un.sun_path, the terminating zero included: unix(7) on Linux and
// Windows, unix(4) on darwin and the BSDs.
func unixPathLimit() int {
	switch runtime.GOOS {
	case "linux", "windows":
		return 108
	default:
		return 104
	}
}

// String returns the address in a form that ParseAddress parses to an equal Address.
func (a Address) String() string {
	switch {
	case a.scheme == schemeTCP, a.scheme == schemeVsock, a.scheme == schemeHvsock,
		a.scheme == schemeUnix && filepath.IsAbs(a.rest):
		return string(a.scheme) + "://" + a.rest
	}
	return string(a.scheme) + ":" + a.rest
}

// dialable returns the network and the address for package net, or an error if a client cannot dial a.
func (a Address) dialable() (network, address string, err error) {
	switch a.scheme {
	case schemeUnix:
		return "unix", a.rest, nil
	case schemeAbstract:
		if runtime.GOOS != "linux" {
			return "", "", errors.New("abstract sockets exist on Linux only")
		}
		return "unix", "@" + a.rest, nil
	case schemeVsock:
		if strings.HasPrefix(a.rest, "any:") {
			return "", "", errors.New("any is for servers: a client needs a CID")
		}
		return "vsock", a.rest, nil
	case schemeTCP, schemeHvsock:
		return string(a.scheme), a.rest, nil
	}
	return "", "", errors.New("a client cannot dial this scheme: want unix, unix-abstract, tcp, vsock or hvsock")
}
