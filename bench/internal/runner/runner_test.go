//go:build unix

package runner_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/ttrpc-starter/bench/contender/raw/frame"
	"example.com/ttrpc-starter/bench/internal/runner"
	"example.com/ttrpc-starter/bench/internal/server"
	"example.com/ttrpc-starter/bench/result"
	"example.com/ttrpc-starter/internal/proctest"
)

// faultEnv makes the test's binary a contender's server that is at fault in the way that it names.
const faultEnv = "BENCH_TEST_FAULT"

// faultyCall is the call at which a server fails. Few calls fit into a window on a busy machine.
const faultyCall = 3

var build runner.Build

func TestMain(m *testing.M) {
	if fault := os.Getenv(faultEnv); fault != "" {
		server.Main(faulty(fault))
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build = runner.Build{Bin: dir, Plain: dir, Certs: filepath.Join(dir, "certs-made")}
	if err := proctest.Build(dir, "../../..", "./internal/dev/certs"); err != nil {
		return 0, err
	}
	if err := proctest.Build(dir, "../..", "./contender/..."); err != nil {
		return 0, err
	}
	if out, err := exec.Command(proctest.Exe(dir, "certs"), build.Certs).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("certs: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// measure runs the suite on the contenders.
func measure(t *testing.T, ctx context.Context, s runner.Suite, contenders []runner.Contender,
	edit func(*runner.Options),
) *result.Run {
	t.Helper()
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	o := runner.Options{
		Suite: s, Contenders: contenders, Build: &build, Module: module, Seed: 1, Timeout: time.Minute,
		Progress: func(int, int, string) {},
	}
	if edit != nil {
		edit(&o)
	}
	measured, err := runner.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return measured
}

// brief is a load that is over soon. Each caller makes at least one call.
func brief(c result.Case, rounds int) runner.Load {
	return runner.Load{Case: c, Rounds: rounds, Warm: time.Millisecond, Window: 5 * time.Millisecond}
}

func contender(t *testing.T, name string) runner.Contender {
	t.Helper()
	all := runner.Contenders()
	i := slices.IndexFunc(all, func(c runner.Contender) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("there is no contender %q", name)
	}
	return all[i]
}

func TestEveryContender(t *testing.T) {
	contenders := slices.DeleteFunc(runner.Contenders(), func(c runner.Contender) bool {
		return c.ControlOf != "" || c.HeapFloor > 0 && c.Name != "ours-floor" // the same binaries again
	})
	suite := runner.Suite{
		Name: "quick", Starts: 1, Busy: 5 * time.Millisecond, Quiet: time.Millisecond, Idle: []int{1, 3}, InFlight: 300,
	}
	for _, transport := range []string{"unix", "tcp", "tls"} {
		for _, kind := range []string{"unary", "stream"} {
			c := result.Case{Transport: transport, Kind: kind, Payload: 64 << 10, Callers: 3}
			suite.Loads = append(suite.Loads, brief(c, 1))
		}
	}
	run := measure(t, t.Context(), suite, contenders, nil)

	if !run.Complete {
		t.Error("the run is not complete")
	}
	loads := map[string]int{}
	for _, l := range run.Loads {
		loads[l.Contender]++
		if len(l.Rounds) != 1 {
			t.Errorf("%+v: %d rounds, want 1", l, len(l.Rounds))
			continue
		}
		r := l.Rounds[0]
		if l.Contender == "netrpc" && l.Kind == "stream" {
			if !r.Unsupported || r.Error == "" || r.Calls != 0 {
				t.Errorf("streams of net/rpc: %+v, want that it is unsupported", r)
			}
			continue
		}
		if r.Error != "" {
			t.Errorf("%s %+v: %s", l.Contender, l.Case, r.Error)
			continue
		}
		if r.Calls < int64(l.Callers) || r.Seconds <= 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.P999 ||
			r.P999 > time.Duration(r.Seconds*1.01*float64(time.Second)) {
			t.Errorf("%s %+v: %+v does not fit together", l.Contender, l.Case, r)
		}
		for side, u := range map[string]result.Usage{"client": r.Client, "server": r.Server} {
			if u.CPU <= 0 || u.Allocs == 0 || u.Alloced == 0 || u.RSS <= 0 {
				t.Errorf("%s's %s %+v: %+v lacks something", l.Contender, side, l.Case, u)
			}
		}
	}
	for _, c := range contenders {
		if want := len(suite.Loads); c.Loads && loads[c.Name] != want {
			t.Errorf("%s has %d loads, want %d", c.Name, loads[c.Name], want)
		}
	}
	checkFootprints(t, run, contenders)
	checkWaiting(t, run, contenders, suite)
}

func checkFootprints(t *testing.T, run *result.Run, contenders []runner.Contender) {
	t.Helper()
	var want, got []string
	for _, c := range contenders {
		if c.Own {
			want = append(want, c.Name)
		}
	}
	for _, f := range run.Footprints {
		got = append(got, f.Contender)
		if f.Error != "" || len(f.Starts) != 1 {
			t.Errorf("footprint of %s: %d starts, error %q", f.Contender, len(f.Starts), f.Error)
			continue
		}
		s := f.Starts[0]
		if f.Binary <= 0 || f.Stripped <= 0 || f.Packages < 50 ||
			s.FirstReply <= 0 || s.IdleRSS <= 0 || s.AfterRSS <= 0 {
			t.Errorf("footprint %+v lacks something", f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("footprints of %v, want %v", got, want)
	}
	if len(run.Modules) < 5 || slices.ContainsFunc(run.Modules, func(m result.Module) bool { return m.Version == "" }) {
		t.Errorf("the modules are %v", run.Modules)
	}
}

func checkWaiting(t *testing.T, run *result.Run, contenders []runner.Contender, suite runner.Suite) {
	t.Helper()
	idle := map[string]int{}
	for _, c := range run.Idle {
		idle[c.Contender]++
		if c.Error != "" || c.Goroutines < c.Connections {
			t.Errorf("idle connections: %+v", c)
		}
	}
	flights := map[string]int{}
	for _, f := range run.InFlight {
		flights[f.Contender]++
		reached := suite.InFlight
		if f.Contender == "ours" && f.Limit == 0 {
			reached = 256
		}
		switch f.Contender {
		case "raw", "drpc":
			if !f.Unsupported || f.Error == "" {
				t.Errorf("calls in flight: %+v, want that it is unsupported", f)
			}
		default:
			if f.Error != "" || f.Reached != reached || f.Answered != suite.InFlight || f.Seconds <= 0 {
				t.Errorf("calls in flight: %+v, want %d reached and %d answered", f, reached, suite.InFlight)
			}
		}
	}
	for _, c := range contenders {
		if !c.Loads || !c.Own {
			continue
		}
		if idle[c.Name] != len(suite.Idle) || flights[c.Name] != len(c.Limits) {
			t.Errorf("%s: %d rows of idle connections, %d of calls in flight", c.Name, idle[c.Name], flights[c.Name])
		}
	}
}

// faulty serves raw's messages until it fails.
func faulty(fault string) server.Serve {
	return func(ctx context.Context, o server.Options, _ *server.Handler, ready func(string)) error {
		if fault == "port" {
			o.Address = os.Getenv("BENCH_TEST_ADDRESS")
		}
		l, address, err := o.Listen(ctx)
		if err != nil {
			return err
		}
		if fault == "never ready" {
			select {}
		}
		ready(address)
		var messages atomic.Int64
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				c := frame.NewConn(conn)
				for {
					id, payload, err := c.Read()
					if err != nil {
						return
					}
					switch n := messages.Add(1); {
					case fault == "mute":
						continue
					case fault == "wrong answer":
						id++
					case fault == "exit" && n == faultyCall:
						fmt.Fprintln(os.Stderr, "out of luck")
						os.Exit(3)
					case fault == "kill" && n == faultyCall:
						p, _ := os.FindProcess(os.Getpid())
						_ = p.Kill()
					case fault == "hang up" && n == faultyCall:
						_ = conn.Close()
					}
					if c.Write(id, payload) != nil {
						return
					}
				}
			}()
		}
	}
}

func TestFailures(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Setenv("BENCH_TEST_ADDRESS", "tcp://"+taken.Addr().String())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	good := contender(t, "raw")
	for _, c := range []struct {
		fault, want string
		timeout     time.Duration // for those that end by it
	}{
		{"port", "address already in use", 0},
		{"exit", "the server ended (exit status 3): out of luck", 0},
		{"kill", "the server ended (signal: killed)", 0},
		{"hang up", "the client: ", 0},
		{"wrong answer", "the answer is to message", 0},
		{"mute", "no answer within", time.Second},
		{"never ready", "the server: no answer within", time.Second},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Setenv(faultEnv, c.fault)
			bad := good
			bad.Name, bad.Server, bad.Own = "bad", self, false
			contenders := []runner.Contender{bad, good}
			if c.timeout > 0 {
				contenders = contenders[:1] // the good one may be too slow for it
			}
			two := result.Case{Transport: "unix", Kind: "unary", Callers: 2}
			suite := runner.Suite{Loads: []runner.Load{brief(two, 2)}}
			suite.Loads[0].Window = 50 * time.Millisecond
			run := measure(t, t.Context(), suite, contenders, func(o *runner.Options) {
				if c.timeout > 0 {
					o.Timeout = c.timeout
				}
			})
			if !run.Complete || len(run.Loads) != len(contenders) {
				t.Fatalf("%d loads, complete: %v", len(run.Loads), run.Complete)
			}
			for _, l := range run.Loads {
				if len(l.Rounds) != 2 {
					t.Fatalf("%d rounds of %s, want 2", len(l.Rounds), l.Contender)
				}
				for _, r := range l.Rounds {
					if l.Contender == "bad" {
						if !strings.Contains(r.Error, c.want) || r.Unsupported || r.Calls != 0 {
							t.Errorf("%+v, want an error with %q and no numbers", r, c.want)
						}
					} else if r.Error != "" || r.Calls == 0 {
						t.Errorf("the other contender suffers: %+v", r)
					}
				}
			}
		})
	}
}

// TestFailuresElsewhere is about all that is measured apart from loads.
func TestFailuresElsewhere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(faultEnv, "exit")
	bad := contender(t, "raw")
	bad.Server = self
	suite := runner.Suite{Starts: 2, Busy: time.Second, Quiet: time.Millisecond, Idle: []int{1, 100}, InFlight: 10}
	run := measure(t, t.Context(), suite, []runner.Contender{bad}, nil)
	if f := run.Footprints; len(f) != 1 || !strings.Contains(f[0].Error, "out of luck") || len(f[0].Starts) != 0 {
		t.Errorf("footprints %+v, want the server's end and no start", run.Footprints)
	}
	if len(run.Idle) != 2 || run.Idle[0].Error != "" || !strings.Contains(run.Idle[1].Error, "out of luck") {
		t.Errorf("idle connections %+v, want the server's end at the second", run.Idle)
	}
}

func TestInterrupt(t *testing.T) {
	const steps = 5
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	suite := runner.Suite{
		Loads:  []runner.Load{brief(result.Case{Transport: "unix", Kind: "unary", Callers: 1}, 10)},
		Starts: 1, Idle: []int{1}, InFlight: 1,
	}
	suite.Loads[0].Window = 20 * time.Millisecond
	begin := time.Now()
	run := measure(t, ctx, suite, []runner.Contender{contender(t, "raw")}, func(o *runner.Options) {
		o.Progress = func(done, _ int, _ string) {
			if done == steps {
				cancel() // so the next one fails
			}
		}
	})
	if run.Complete || len(run.Loads) != 1 || len(run.Loads[0].Rounds) != steps {
		t.Fatalf("%+v, want %d rounds and no more", run, steps)
	}
	for _, r := range run.Loads[0].Rounds {
		if r.Error != "" || r.Calls == 0 {
			t.Errorf("a kept round is %+v", r)
		}
	}
	if len(run.Footprints)+len(run.Idle)+len(run.InFlight) != 0 {
		t.Errorf("what was not measured is there: %+v", run)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v to stop", took)
	}
}

func TestNoBinaries(t *testing.T) {
	o := runner.Options{Contenders: runner.Contenders(), Build: &runner.Build{Bin: t.TempDir()}}
	if _, err := runner.Run(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a run without binaries: %v, want that they are missing", err)
	}
}
