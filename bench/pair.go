package main

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

	psutil "github.com/shirou/gopsutil/v4/process"

	"example.com/ttrpc-starter/bench/internal/worker"
)

// timeout is how long a client may take for a window, beyond the window's time.
const timeout = time.Minute

// process is a contender's server or client. It ends when its standard input does, or is killed.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr tail
	os     *psutil.Process
}

func start(program string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...)}
	p.cmd.Stderr = &p.stderr
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // the benchmark's settings are its own
		return strings.HasPrefix(v, "GOGC=") || strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	var inErr, outErr, osErr error
	p.stdin, inErr = p.cmd.StdinPipe()
	p.stdout, outErr = p.cmd.StdoutPipe()
	err := errors.Join(inErr, outErr)
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	if p.os, osErr = psutil.NewProcess(int32(p.cmd.Process.Pid)); osErr != nil {
		p.stop()
		return nil, fmt.Errorf("look at %s: %w", program, osErr)
	}
	return p, nil
}

// stop ends the process and returns the CPU time that it used.
func (p *process) stop() time.Duration {
	_ = p.stdin.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// cpu returns the CPU time that the process has used, to the clock's tick.
func (p *process) cpu() (time.Duration, error) {
	times, err := p.os.Times()
	if err != nil {
		return 0, err
	}
	return time.Duration((times.User + times.System) * float64(time.Second)), nil
}

// rss returns the resident set size in MiB.
func (p *process) rss() (float64, error) {
	info, err := p.os.MemoryInfo()
	if err != nil {
		return 0, err
	}
	return float64(info.RSS) / (1 << 20), nil
}

// tail keeps the end of what a process writes to its standard error.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-2000):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}

// pair is a server and a client of it.
type pair struct {
	contender
	socket         string
	server, client *process
	startTime      time.Duration // from the server's start until it listened
	answers        *json.Decoder
}

// startPair starts programs of the directory bin.
func startPair(ctx context.Context, bin string, c contender) (_ *pair, err error) {
	dir, err := os.MkdirTemp("", "bench-") // short, as a socket's path must be
	if err != nil {
		return nil, err
	}
	p := &pair{contender: c, socket: filepath.Join(dir, "s")}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
			p.stop()
		}
	}()
	args := append(slices.Clone(c.flags), "server", p.socket)
	if c.starts {
		args = []string{"-address", "unix://" + p.socket}
	}
	begin := time.Now()
	if p.server, err = start(program(bin, c.server), args...); err != nil {
		return nil, err
	}
	if err := worker.Await(ctx, p.socket); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.server.stderr.String())
	}
	p.startTime = time.Since(begin)
	client := c.client
	if client == "" {
		client = c.server
	}
	if p.client, err = start(program(bin, client), append(slices.Clone(c.flags), "client", p.socket)...); err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(p.client.stdout)
	_, err = p.run(ctx, worker.Window{Callers: 1})
	return p, err
}

// stop ends both and returns the CPU time that they used.
func (p *pair) stop() (cpu time.Duration) {
	for _, process := range []*process{p.client, p.server} {
		if process != nil {
			cpu += process.stop()
		}
	}
	_ = os.RemoveAll(filepath.Dir(p.socket))
	return cpu
}

// run has the client do something.
func (p *pair) run(ctx context.Context, w worker.Window) (r worker.Result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, w.Time+timeout,
		fmt.Errorf("no answer within %v", w.Time+timeout))
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = p.client.cmd.Process.Kill() })() // what is read below ends then
	err = json.NewEncoder(p.client.stdin).Encode(w)
	if err == nil {
		err = p.answers.Decode(&r)
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		err = fmt.Errorf("the client: %w\n%s\n%s", err, p.client.stderr.String(), p.server.stderr.String())
	case r.Unsupported:
		err = errors.ErrUnsupported
	case r.Error != "":
		err = errors.New(r.Error)
	}
	return r, err
}

// cpu returns the CPU time that both have used.
func (p *pair) cpu() (time.Duration, error) {
	server, err := p.server.cpu()
	if err != nil {
		return 0, err
	}
	client, err := p.client.cpu()
	return server + client, err
}
