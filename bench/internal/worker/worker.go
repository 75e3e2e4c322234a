// Package worker is what the contenders' programs have in common. Each is a server or a client, as its first argument
// says, at the unix socket that its second one names.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// Contender is a way to call.
type Contender struct {
	// Serve serves at a socket until the process ends, or returns why it cannot.
	Serve func(ctx context.Context, socket string) error

	// Dial connects to a server that listens.
	Dial func(ctx context.Context, socket string) (Conn, error)
}

// Conn is a client.
type Conn interface {
	// Echo sends an id and a payload and returns what came back. It takes the ids of one caller one after the other.
	Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error)

	// Stream opens a stream on which each message comes back, or returns errors.ErrUnsupported.
	Stream(ctx context.Context) (Stream, error)

	Close() error
}

// Stream is a client's side of a stream.
type Stream interface {
	Send(id uint64, payload []byte) error
	Recv() (uint64, []byte, error)
	CloseSend() error
}

// Main is the main function of a contender. It ends when its standard input does.
func Main(c Contender) {
	signal.Ignore(os.Interrupt) // Ctrl-C is for the benchmark, which ends its processes itself
	if err := run(c); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
}

func run(c Contender) error {
	var floor heapfloor.Size
	flag.Var(&floor, "heap-floor", "`size` up to which the heap may grow before it is collected")
	flag.DurationVar(&slow, "slow", 0, "`duration` to waste for each frame of a call, to try what can be seen")
	flag.Parse()
	if _, err := heapfloor.Set(floor); err != nil {
		return err
	}
	ctx, socket := context.Background(), flag.Arg(1)
	if flag.Arg(0) == "server" {
		failed := make(chan error, 1)
		go func() { failed <- c.Serve(ctx, socket) }()
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, os.Stdin)
			ended <- err
		}()
		select {
		case err := <-failed:
			return err
		case err := <-ended:
			return err
		}
	}
	if err := Await(ctx, socket); err != nil {
		return err
	}
	client := &client{contender: c, socket: socket}
	commands, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var w Window
		if err := commands.Decode(&w); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		result, err := client.run(ctx, w)
		if err != nil {
			result.Error, result.Unsupported = err.Error(), errors.Is(err, errors.ErrUnsupported)
		}
		if err := answers.Encode(result); err != nil {
			return err
		}
	}
}

// Await returns when a server listens at the socket, or after half a minute.
func Await(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// Listen listens at a socket, for contenders that bring no listener.
func Listen(ctx context.Context, socket string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "unix", socket)
}

// Dial connects to a socket, for contenders that bring no dialer.
func Dial(ctx context.Context, socket string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", socket)
}

// slow is how much longer a server of ttrpc's contenders works on a frame.
var slow time.Duration

// Handle is called by a handler for each call, which has two frames.
func Handle() {
	if slow > 0 {
		for start := time.Now(); time.Since(start) < 2*slow; {
		}
	}
}

// EchoStream answers each request until the client closes its side.
func EchoStream[Request any](recv func() (Request, error), answer func(Request) error) error {
	for {
		req, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(req); err != nil {
			return err
		}
	}
}
