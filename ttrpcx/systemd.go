package ttrpcx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// firstDescriptor is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstDescriptor = 3

// notifyTimeout is the time for which a busy systemd can delay the start or the stop.
const notifyTimeout = 5 * time.Second

// systemdListener returns the socket that systemd passed to this process, see sd_listen_fds(3): the socket of that
// name, or the only socket if the name is empty. It removes the variables from the environment, so that no child
// process uses them.
func systemdListener(name string) (net.Listener, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(v)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("systemd passed no socket: start the program by a .socket unit, or give another address")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("systemd passed LISTEN_FDS=%q: want a number above zero", count)
	}
	fd := firstDescriptor
	if name != "" {
		i := indexName(names, name, n)
		if i < 0 {
			return nil, fmt.Errorf(
				"systemd passed no socket called %q, but %q: see FileDescriptorName= in systemd.socket(5)", name, names)
		}
		fd += i
	} else if n > 1 {
		return nil, fmt.Errorf("systemd passed %d sockets (%s): name one, as systemd:NAME", n, names)
	}
	f := os.NewFile(uintptr(fd), "systemd socket")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d from systemd cannot be used", fd)
	}
	l, err := net.FileListener(f)
	if err == nil {
		err = checkListening(f)
	}
	if err != nil {
		// The descriptor stays open: it may belong to another part of the program.
		return nil, fmt.Errorf("descriptor %d from systemd is not a listening socket (it needs Accept=no): %w",
			fd, cause(err))
	}
	_ = f.Close() // FileListener has duplicated it, with close-on-exec
	return l, nil
}

func indexName(names, name string, count int) int {
	for i, n := range strings.Split(names, ":") {
		if n == name && i < count {
			return i
		}
	}
	return -1
}

// notify tells systemd a state such as "READY=1", see sd_notify(3). Without NOTIFY_SOCKET it does nothing.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// A name that starts with "@" is an abstract socket, to systemd and to package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(notifyTimeout)) // the socket's queue may be full
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
