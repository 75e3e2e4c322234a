// Behaviour does to a server and a client what the rows of a table say, and prints what it saw in each, as JSON: a list
// of phrases, in which words between backquotes are those of ttrpc.
//
// Usage: behaviour | behaviour serve PATH. The second is the server that the first one starts where it may crash.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

const (
	// patience is how long something may take that is going to happen.
	patience = time.Minute
	// hang is how long a call may take before it counts as one without an answer. ttrpc's own limit is a second.
	hang = 10 * time.Second
	// open is how long a call stays open in a server that may end at once.
	open = 3 * time.Second
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if _, err := serve(os.Args[2], service(crash)); err != nil {
			log.Fatal(err)
		}
		fmt.Println("serving")
		_, _ = io.Copy(io.Discard, os.Stdin) // the end of it is the parent's
		return
	}
	cells, err := watchAll()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(cells)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// watchAll makes all rows at the same time: some wait for what never comes.
func watchAll() (map[string][]string, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	cells := map[string][]string{}
	for name, row := range rows {
		group.Go(func() {
			r := &run{path: filepath.Join(dir, name)}
			defer r.end()
			seen, err := row(r)
			mu.Lock()
			defer mu.Unlock()
			cells[name] = seen
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	group.Wait()
	return cells, failed
}

func service(text func(context.Context, string) (string, error)) testv1.TestService {
	return testservice.Service{Text: text}
}

// run is what a row has started.
type run struct {
	path  string
	clean []func()
}

func (r *run) end() {
	for _, f := range r.clean {
		f()
	}
}

// start starts a server in this process, whose handlers pass the text of each message to text.
func (r *run) start(text func(context.Context, string) (string, error)) (testv1.TestClient, error) {
	if _, err := serve(r.path, service(text)); err != nil {
		return nil, err
	}
	return r.dial()
}

func (r *run) dial() (testv1.TestClient, error) {
	client, closeClient, err := dial(r.path)
	if err == nil {
		r.clean = append(r.clean, func() { _ = closeClient() })
	}
	return client, err
}

// unary makes a call that counts as without an answer if it takes too long.
func unary(ctx context.Context, client testv1.TestClient, text string) error {
	return within(func() error {
		_, err := client.Unary(ctx, &testv1.UnaryRequest{Foo: text})
		return err
	})
}

var errHang = errors.New("no answer")

// within needs no help of what it calls: some calls ignore their context.
func within(call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(hang):
		return errHang
	}
}

// outcome returns how a call has ended, for a cell.
func outcome(err error) string {
	switch st, ok := status.FromError(err); {
	case err == nil:
		return "an answer"
	case errors.Is(err, errHang):
		return "no answer"
	case !ok:
		return "`" + err.Error() + "`, no code"
	default:
		// An error that wraps one with a status has all of its text as the message.
		text := strings.TrimPrefix(st.Message(), fmt.Sprintf("rpc error: code = %s desc = ", st.Code()))
		return fmt.Sprintf("`%s`: `%s`", st.Code(), text)
	}
}

// later returns how a call on the same connection ends.
func later(client testv1.TestClient) string {
	switch err := unary(context.Background(), client, "x"); {
	case err == nil:
		return "later calls work"
	case errors.Is(err, errHang):
		return "later calls get no answer"
	default:
		return "later calls fail"
	}
}
