package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

const (
	large = 5 << 20 // over ttrpc's 4 MiB
	many  = 150     // messages, more than a stream's buffer has room for, and less than a socket's
)

var rows = map[string]func(*run) ([]string, error){
	"metadata unary":  func(r *run) ([]string, error) { return arrives(r, false, metadata) },
	"metadata stream": func(r *run) ([]string, error) { return arrives(r, true, metadata) },
	"deadline unary":  func(r *run) ([]string, error) { return arrives(r, false, deadline) },
	"deadline stream": func(r *run) ([]string, error) { return arrives(r, true, deadline) },
	"cancel unary":    func(r *run) ([]string, error) { return cancelled(r, false) },
	"cancel stream":   func(r *run) ([]string, error) { return cancelled(r, true) },
	"large request":   func(r *run) ([]string, error) { return tooLarge(r, strings.Repeat("x", large), "") },
	"large answer":    func(r *run) ([]string, error) { return tooLarge(r, "x", strings.Repeat("x", large)) },
	"slow client":     slowClient,
	"slow handler":    slowHandler,
	"panic":           panics,
	"frames":          twoFrames,
	"shutdown":        shutdown,
	"socket":          leftSocket,
}

func metadata(ctx context.Context) bool {
	value, ok := ttrpc.GetMetadataValue(ctx, "key")
	return ok && value == "value"
}

func deadline(ctx context.Context) bool {
	_, ok := ctx.Deadline()
	return ok
}

// once makes a call, of one message if it is a stream.
func once(ctx context.Context, client testv1.TestClient, stream bool, text string) error {
	if !stream {
		_, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: text})
		return err
	}
	s, err := client.Echo(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&testv1.EchoRequest{Message: text}); err != nil {
		return err
	}
	if _, err := s.Recv(); err != nil {
		return err
	}
	return s.CloseSend()
}

func arrives(r *run, stream bool, has func(context.Context) bool) ([]string, error) {
	saw := make(chan bool, 1)
	client, err := r.start(func(ctx context.Context, text string) (string, error) {
		saw <- has(ctx)
		return text, nil
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"key": {"value"}})
	if err := once(ctx, client, stream, "x"); err != nil {
		return nil, err
	}
	if <-saw {
		return []string{"arrives"}, nil
	}
	return []string{"does not arrive"}, nil
}

// cancelled makes calls after the cancelled one: had the connection carried the cancellation, it would have come first.
func cancelled(r *run, stream bool) ([]string, error) {
	handler := make(chan context.Context, 1)
	_, err := serveBlocking(r, handler, nil)
	if err != nil {
		return nil, err
	}
	client, closeClient, err := dial(r.path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- once(ctx, client, stream, "block") }()
	inside := <-handler
	cancel()
	cells := []string{outcome(within(func() error { return <-ended }))}
	for range 100 {
		if err := unary(context.Background(), client, "x"); err != nil {
			return nil, err
		}
	}
	runsOn := inside.Err() == nil
	_ = closeClient()
	select {
	case <-inside.Done():
	case <-time.After(hang):
		return append(cells, "the handler runs on after the connection has closed"), nil
	}
	if runsOn {
		return append(cells, "the handler's context lasts until the connection closes"), nil
	}
	return append(cells, "the handler's context ends"), nil
}

// serveBlocking starts a server whose handlers, if the text is "block", hand over their context and wait for its end or
// for release.
func serveBlocking(r *run, handler chan<- context.Context, release <-chan struct{}) (func() error, error) {
	return serve(r.path, service(func(ctx context.Context, text string) (string, error) {
		if text == "block" {
			select {
			case handler <- ctx:
			default: // a further message of the stream
			}
			select {
			case <-release:
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		return text, nil
	}))
}

func tooLarge(r *run, request, answer string) ([]string, error) {
	client, err := r.start(func(_ context.Context, text string) (string, error) {
		if answer != "" && text == request {
			request = "" // only this one
			return answer, nil
		}
		return text, nil
	})
	if err != nil {
		return nil, err
	}
	return []string{outcome(unary(context.Background(), client, request)), later(client)}, nil
}

// slowClient opens a stream of many messages, and receives none before the server has sent all, if it can, and another
// call has been answered.
func slowClient(r *run) ([]string, error) {
	var sent atomic.Int32
	all := make(chan error, 1)
	client, err := r.start(func(_ context.Context, text string) (string, error) {
		if sent.Add(1) == many {
			all <- nil
		}
		return text, nil
	})
	if err != nil {
		return nil, err
	}
	s, err := client.Split(context.Background(), &testv1.SplitRequest{Text: strings.Repeat("x ", many)})
	if err != nil {
		return nil, err
	}
	cells := []string{"the server can send them"}
	if err := within(func() error { return <-all }); err != nil {
		cells[0] = "the server waits"
	}
	cells = append(cells, later(client))
	got := 0
	err = within(func() error { return receive(s.Recv, &got) })
	return append(cells, streamEnd(err, got)), nil
}

// receive receives to the end of a stream.
func receive[M any](recv func() (M, error), got *int) error {
	for {
		if _, err := recv(); err != nil {
			return err
		}
		*got++
	}
}

func streamEnd(err error, got int) string {
	switch {
	case !errors.Is(err, io.EOF):
		return "the stream ends with " + outcome(err)
	case got == many:
		return "no message is lost"
	}
	return "messages are lost without an error"
}

// slowHandler sends many messages to a handler that receives the second one only when it is released.
func slowHandler(r *run) ([]string, error) {
	handler, release := make(chan context.Context, 1), make(chan struct{})
	if _, err := serveBlocking(r, handler, release); err != nil {
		return nil, err
	}
	client, err := r.dial()
	if err != nil {
		return nil, err
	}
	s, err := client.Echo(context.Background())
	if err != nil {
		return nil, err
	}
	sent, ended, got := make(chan error, 1), make(chan error, 1), 0
	go func() {
		for range many {
			if err := s.Send(&testv1.EchoRequest{Message: "block"}); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	go func() { ended <- receive(s.Recv, &got) }()
	var cells []string
	switch err := within(func() error { return <-sent }); {
	case errors.Is(err, errHang):
		cells = append(cells, "the client waits")
	case err != nil:
		cells = append(cells, "the client cannot send: "+outcome(err))
	default:
		cells = append(cells, "the client can send them")
	}
	cells = append(cells, later(client))
	close(release)
	err = within(func() error { return <-ended })
	return append(cells, streamEnd(err, got)), nil
}

func shutdown(r *run) ([]string, error) {
	handler, release := make(chan context.Context, 1), make(chan struct{})
	stop, err := serveBlocking(r, handler, release)
	if err != nil {
		return nil, err
	}
	client, err := r.dial()
	if err != nil {
		return nil, err
	}
	ended, stopped := make(chan error, 1), make(chan error, 1)
	go func() { ended <- unary(context.Background(), client, "block") }()
	<-handler
	go func() { stopped <- stop() }()
	cells := []string{"the server waits for the call"}
	select {
	case err := <-stopped:
		if err != nil {
			return nil, err
		}
		cells[0] = "the server does not wait for the call"
	case <-time.After(open):
	}
	close(release)
	return append(cells, "the call gets "+outcome(<-ended)), nil
}

// crash is what the handlers of a server do that has a process of its own.
func crash(ctx context.Context, text string) (string, error) {
	switch text {
	case "panic":
		panic("the handler panics")
	case "block":
		<-ctx.Done()
		return "", ctx.Err()
	}
	return text, nil
}

// child starts a server in a process of its own.
func (r *run) child() (ended <-chan struct{}, kill func(), err error) {
	cmd := exec.Command(os.Args[0], "serve", r.path)
	stdin, err := cmd.StdinPipe() // it ends when this process does
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, nil, fmt.Errorf("the server has not started: %w", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-done
		_ = stdin.Close()
	}
	r.clean = append(r.clean, kill)
	return done, kill, nil
}

// survives returns whether a new client gets an answer, or else waits for the end of the process.
func (r *run) survives(ended <-chan struct{}) (string, error) {
	client, err := r.dial()
	if err == nil {
		err = unary(context.Background(), client, "x")
	}
	if err == nil {
		return "the process lives", nil
	}
	select {
	case <-ended:
		return "the process dies", nil
	case <-time.After(patience):
		return "", fmt.Errorf("neither dead nor alive: %w", err)
	}
}

func panics(r *run) ([]string, error) {
	ended, _, err := r.child()
	if err != nil {
		return nil, err
	}
	client, err := r.dial()
	if err != nil {
		return nil, err
	}
	cell := outcome(unary(context.Background(), client, "panic"))
	lives, err := r.survives(ended)
	return []string{lives, "the caller gets " + cell}, err
}

// twoFrames opens a unary call, and sends a message of a stream on it.
func twoFrames(r *run) ([]string, error) {
	ended, _, err := r.child()
	if err != nil {
		return nil, err
	}
	payload, err := proto.Marshal(&testv1.UnaryRequest{Foo: "block"})
	if err != nil {
		return nil, err
	}
	request, err := proto.Marshal(&ttrpc.Request{Service: "test.v1.Test", Method: "Unary", Payload: payload})
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	const typeRequest, typeData = 1, 3
	b := append(frame(typeRequest, len(request)), request...)
	if _, err := conn.Write(append(append(b, frame(typeData, len(payload))...), payload...)); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(hang)); err != nil {
		return nil, err
	}
	cell := "the connection is closed"
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		cell = "the connection stays open"
	}
	lives, err := r.survives(ended)
	return []string{lives, cell}, err
}

// frame returns the header of a frame on the first stream.
func frame(kind byte, length int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(length))
	return append(binary.BigEndian.AppendUint32(b, 1), kind, 0)
}

func leftSocket(r *run) ([]string, error) {
	_, kill, err := r.child()
	if err != nil {
		return nil, err
	}
	kill()
	if _, err := os.Lstat(r.path); err != nil {
		return nil, fmt.Errorf("the killed server has left no socket: %w", err)
	}
	if _, err := serve(r.path, service(nil)); err != nil {
		return []string{"fails: `" + strings.ReplaceAll(err.Error(), r.path, "PATH") + "`"}, nil
	}
	return []string{"works"}, nil
}
