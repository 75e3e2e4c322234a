// Run starts the server on a private socket, runs the client as often as it is told, and stops the server. It fails if
// either fails.
//
// Usage: run SERVER CLIENT FLAGS..., the two binaries and, for each run of the client, its flags as one argument.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is longer than the server's own deadline for calls that are open when it is told to stop.
const stopTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	signal.Ignore(syscall.SIGPIPE) // what reads the output may end first, and the server must be stopped even so
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "run: want the server's and the client's binary and flags for the client as arguments")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, client string, calls []string) (err error) {
	dir, err := os.MkdirTemp("", "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address := "unix://" + filepath.ToSlash(filepath.Join(dir, "run.sock"))

	stop, err := start(ctx, server, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	for _, flags := range calls {
		if err := call(ctx, client, append([]string{"-address", address}, strings.Fields(flags)...)); err != nil {
			return fmt.Errorf("client %s: %w", flags, err)
		}
	}
	return nil
}

// start starts the server and waits until it listens. stop ends it and returns its error.
func start(ctx context.Context, server, address string) (stop func() error, err error) {
	ready := make(chan struct{})
	out := &lines{prefix: "server | ", awaited: "server start", seen: func() { close(ready) }}
	cmd := exec.Command(server, "-address", address)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ready:
	case err := <-ended:
		return nil, fmt.Errorf("server ended before it listened: %w", err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), cmd.Process.Kill())
	}
	return func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return fmt.Errorf("stop server: %w", err)
		}
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("server: %w", err)
			}
			return nil
		case <-time.After(stopTimeout):
			return errors.Join(fmt.Errorf("server did not stop within %v", stopTimeout), cmd.Process.Kill())
		}
	}, nil
}

func call(ctx context.Context, client string, args []string) error {
	out := &lines{prefix: "client | "}
	cmd := exec.CommandContext(ctx, client, args...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

// lines is a writer that prints each line with a prefix.
type lines struct {
	prefix  string
	rest    []byte // of a line that is not complete yet
	awaited string // if a line holds this, seen is called, once
	seen    func()
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		fmt.Printf("%s%s\n", l.prefix, line)
		if l.seen != nil && bytes.Contains(line, []byte(l.awaited)) {
			l.seen()
			l.seen = nil
		}
		l.rest = rest
	}
}
