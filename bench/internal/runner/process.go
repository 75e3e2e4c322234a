package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/ttrpc-starter/bench/internal/control"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// process is a contender's server or client.
type process struct {
	what    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  *io.PipeReader
	answers *json.Decoder
	stderr  tail
	ended   chan struct{}
}

// start starts a process. Its standard input closes when this process ends, so that it ends, too.
func start(what, binary string, args ...string) (*process, error) {
	p := &process{what: what, cmd: exec.Command(binary, args...), ended: make(chan struct{})}
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // a contender's settings are the run's alone
		return strings.HasPrefix(v, "GOGC=") || strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	out, in := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = in, &p.stderr
	p.stdout, p.answers = out, json.NewDecoder(out)
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		_ = in.Close()
		close(p.ended)
	}()
	return p, nil
}

// stop ends the process and waits until it is gone.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.stdout.Close() // or output that nobody reads would block the end
	<-p.ended
}

// ask sends a command and returns the answer to it.
func (p *process) ask(ctx context.Context, c control.Command) (control.Answer, error) {
	if err := json.NewEncoder(p.stdin).Encode(c); err != nil {
		return control.Answer{}, p.cause(err)
	}
	return p.answer(ctx)
}

// answer returns the next answer. If there is none in time, the process is stopped.
func (p *process) answer(ctx context.Context) (control.Answer, error) {
	type decoded struct {
		a   control.Answer
		err error
	}
	answered := make(chan decoded, 1)
	go func() {
		var d decoded
		d.err = p.answers.Decode(&d.a)
		answered <- d
	}()
	select {
	case d := <-answered:
		switch {
		case d.err != nil:
			return d.a, p.cause(d.err)
		case d.a.Unsupported:
			return d.a, &unsupportedError{d.a.Error}
		case d.a.Error != "":
			return d.a, fmt.Errorf("%s: %s", p.what, d.a.Error)
		}
		return d.a, nil
	case <-ctx.Done():
		p.stop()
		return control.Answer{}, fmt.Errorf("%s: %w", p.what, context.Cause(ctx))
	}
}

// cause says how the process ended, if that is why it does not answer.
func (p *process) cause(err error) error {
	select {
	case <-p.ended:
		return p.end()
	case <-time.After(grace):
		return fmt.Errorf("%s: %w", p.what, err)
	}
}

// grace is how long after a failure its cause, the end of a process, may show.
const grace = 2 * time.Second

func (p *process) end() error {
	return fmt.Errorf("%s ended (%v): %s", p.what, p.cmd.ProcessState, strings.TrimSpace(p.stderr.String()))
}

// unsupportedError is what a contender says that it does not have.
type unsupportedError struct{ text string }

func (e *unsupportedError) Error() string { return e.text }

func isUnsupported(err error) bool {
	var unsupported *unsupportedError
	return errors.As(err, &unsupported)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 1000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.ToValidUTF8(t.buf, []byte("?")))
}

// pair is a contender's server and client.
type pair struct {
	dir            string // of the socket
	server, client *process
	flags          control.Flags
}

// startPair starts both and waits until the server is ready.
func (r *runner) startPair(ctx context.Context, c Contender, transport string, maxCalls int) (_ *pair, err error) {
	p, err := r.newPair(c, transport, maxCalls)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if p.server, err = start("the server", r.Build.Path(c.Server), p.flags.Args()...); err != nil {
		return nil, err
	}
	if p.client, err = start("the client", r.Build.Path(c.Client), p.flags.Args()...); err != nil {
		return nil, err
	}
	ready, err := p.server.answer(ctx)
	if err != nil {
		return nil, err
	}
	p.flags.Endpoint.Address = ready.Address
	return p, nil
}

// newPair makes the place of the pair's socket.
func (r *runner) newPair(c Contender, transport string, maxCalls int) (*pair, error) {
	dir, err := os.MkdirTemp("", "bench-") // short, as a socket's path must be
	if err != nil {
		return nil, err
	}
	p := &pair{dir: dir, flags: control.Flags{MaxCalls: maxCalls, Floor: heapfloor.Size(c.HeapFloor)}}
	switch transport {
	case "unix":
		p.flags.Endpoint.Address = "unix://" + filepath.ToSlash(filepath.Join(dir, "s"))
	case "tls":
		p.flags.Endpoint.Certs = r.Build.Certs
		fallthrough
	case "tcp":
		p.flags.Endpoint.Address = "tcp://127.0.0.1:0"
	}
	return p, nil
}

func (p *pair) stop() {
	p.client.stop()
	p.server.stop()
	_ = os.RemoveAll(p.dir)
}

// call asks the client. When that fails, a server that has ended is the reason.
func (p *pair) call(ctx context.Context, c control.Command) (control.Answer, error) {
	c.Endpoint = p.flags.Endpoint
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.server.ended:
			cancel(p.server.end())
		case <-ctx.Done():
		}
	}()
	a, err := p.client.ask(ctx, c)
	if err != nil && !isUnsupported(err) {
		select {
		case <-p.server.ended:
			return a, p.server.end()
		case <-time.After(grace):
		}
	}
	return a, err
}
