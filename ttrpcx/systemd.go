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

// notifyTimeout bounds how long a busy systemd holds up the start or the stop.
const notifyTimeout = 5 * time.Second

// activated returns the socket that systemd passed to this process, following sd_listen_fds(3): the one of that name, or
// the only one if the name is empty. The environment is cleared so that no child takes it for its own.
func activated(name string) (net.Listener, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(v)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("systemd passed no socket: start this by a .socket unit, or give another address")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("systemd passed LISTEN_FDS=%q: want a number above zero", count)
	}
	fd := firstDescriptor
	if name != "" {
		i := indexName(names, name, n)
		if i < 0 {
			return nil, fmt.Errorf("systemd passed no socket called %q, but %q: see FileDescriptorName= in systemd.socket(5)", name, names)
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
		err = listening(f)
	}
	if err != nil {
		// Whatever this descriptor is, it may not be ours to close.
		return nil, fmt.Errorf("descriptor %d from systemd is no listening socket (it needs Accept=no): %w", fd, cause(err))
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

// notify tells systemd a state such as "READY=1", following sd_notify(3). Without NOTIFY_SOCKET there is nobody to tell.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // "@" is package net's abstract
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(notifyTimeout)) // its queue may be full
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
