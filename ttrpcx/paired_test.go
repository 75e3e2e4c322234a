//go:build unix

package ttrpcx_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

const (
	window    = 40 * time.Millisecond
	minRounds = 40
)

var base = flag.String("base", "",
	"`file` from go test -c of an older version, for BenchmarkPaired to compare with as well")

// BenchmarkPaired compares this package with stock ttrpc. Pairs of a server and a client live through all of it: stock
// ttrpc, this package, stock ttrpc once more as the control, and this package of an older version if -base names its
// test binary. They take turns in short windows, so that what else the machine does hits all alike. Each figure is the
// median over the rounds:
//
//	x-stock, x-base          calls a second, as a multiple of stock's or of the older version's
//	x-stock-low, -high       the 95 % interval of that median, from a bootstrap
//	x-stock-cpu, x-base-cpu  CPU time that a call takes in both processes, as a multiple of the same
//	x-control                calls a second of one stock pair, as a multiple of the other's: all but 1 is noise
//
// A busy machine changes the multiples of stock, not only their noise. So measure the older version at the same time.
// Two minutes: go test -run - -bench Paired -benchtime 80x ./ttrpcx
func BenchmarkPaired(b *testing.B) {
	dir, err := os.MkdirTemp("", "t-") // b.TempDir can be too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	pairs := []pair{
		startPair(b, os.Args[0], "stock", filepath.Join(dir, "0")),
		startPair(b, os.Args[0], "ours", filepath.Join(dir, "1")),
		startPair(b, os.Args[0], "stock", filepath.Join(dir, "2")),
	}
	if *base != "" {
		pairs = append(pairs, startPair(b, *base, "ours", filepath.Join(dir, "3")))
	}
	for _, callers := range []int{1, 4, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { paired(b, pairs, callers, 0) })
	}
	for _, size := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { paired(b, pairs, 1, size) })
	}
}

func paired(b *testing.B, pairs []pair, callers, size int) {
	var rounds [][]cost
	round := func() {
		costs := make([]cost, len(pairs))
		// A pair that comes twice in a row is faster the second time, so the order is random. Each round has it
		// forwards and backwards, so that a drift cancels out.
		order := rand.Perm(len(pairs))
		for _, turns := range []iter.Seq2[int, int]{slices.All(order), slices.Backward(order)} {
			for _, i := range turns {
				costs[i] = costs[i].plus(pairs[i].run(b, callers, size))
			}
		}
		rounds = append(rounds, costs)
	}
	round() // until heaps and buffers have their size
	rounds = nil
	for b.Loop() {
		round()
	}
	for len(rounds) < minRounds {
		round()
	}
	ratios := func(ratio func(costs []cost) float64) []float64 {
		values := make([]float64, len(rounds))
		for i, costs := range rounds {
			values[i] = ratio(costs)
		}
		return values
	}
	report := func(unit string, other func(costs []cost) cost) {
		speed := ratios(func(c []cost) float64 { return c[1].speed() / other(c).speed() })
		low, high := interval(speed)
		b.ReportMetric(median(speed), unit)
		b.ReportMetric(low, unit+"-low")
		b.ReportMetric(high, unit+"-high")
		cpu := ratios(func(c []cost) float64 { return c[1].cpuPerCall() / other(c).cpuPerCall() })
		b.ReportMetric(median(cpu), unit+"-cpu")
	}
	report("x-stock", func(c []cost) cost { return c[0].plus(c[2]) })
	if *base != "" {
		report("x-base", func(c []cost) cost { return c[3] })
	}
	b.ReportMetric(median(ratios(func(c []cost) float64 { return c[2].speed() / c[0].speed() })), "x-control")
	b.ReportMetric(0, "ns/op") // means nothing here
}

func median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

// interval returns the 95 % interval of the values' median.
func interval(values []float64) (low, high float64) {
	random := rand.New(rand.NewPCG(1, 1))
	medians, sample := make([]float64, 2000), make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		medians[i] = median(sample)
	}
	slices.Sort(medians)
	tail := len(medians) / 40
	return medians[tail], medians[len(medians)-1-tail]
}

// cost is what calls took.
type cost struct {
	calls     int64
	wall, cpu time.Duration
}

func (c cost) plus(d cost) cost    { return cost{c.calls + d.calls, c.wall + d.wall, c.cpu + d.cpu} }
func (c cost) speed() float64      { return float64(c.calls) / c.wall.Seconds() }
func (c cost) cpuPerCall() float64 { return c.cpu.Seconds() / float64(c.calls) }

type pair struct{ server, client *worker }

func startPair(b *testing.B, exe, kind, path string) (p pair) {
	b.Helper()
	p.server = startWorker(b, exe, "server", kind, path)
	p.server.ask(b, "cpu", new(int64)) // when it answers, it listens
	p.client = startWorker(b, exe, "client", kind, path)
	return p
}

// run has the client call for one window.
func (p pair) run(b *testing.B, callers, size int) (c cost) {
	b.Helper()
	var before, after time.Duration
	p.server.ask(b, "cpu", &before)
	p.client.ask(b, fmt.Sprint(callers, size), &c.calls, &c.wall, &c.cpu)
	p.server.ask(b, "cpu", &after)
	c.cpu += after - before
	return c
}

// worker is a process of this test binary that answers each line on its standard input with one on its standard output.
type worker struct {
	stdin  io.Writer
	stdout io.Reader
}

// workerRole is set in the environment of a worker, to what it is: server or client.
const workerRole = "TEST_WORKER_ROLE"

// startWorker starts a worker that is killed when the benchmark ends.
func startWorker(b *testing.B, exe, role, kind, path string) *worker {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), exe, kind, path)
	cmd.Env = append(os.Environ(), workerRole+"="+role)
	cmd.Stderr = os.Stderr
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Wait() })
	return &worker{stdin, bufio.NewReader(stdout)}
}

func (w *worker) ask(b *testing.B, question string, answers ...any) {
	b.Helper()
	fmt.Fprintln(w.stdin, question)
	if _, err := fmt.Fscanln(w.stdout, answers...); err != nil {
		b.Fatalf("a worker does not answer %q: %v", question, err)
	}
}

// init takes over in a worker, before package testing looks at the arguments.
func init() {
	work := map[string]func(kind, path string){"server": workAsServer, "client": workAsClient}[os.Getenv(workerRole)]
	if work != nil {
		work(os.Args[1], os.Args[2])
		os.Exit(0) // the benchmark has gone
	}
}

func workAsServer(kind, path string) {
	ctx, server := context.Background(), must(ttrpc.NewServer())
	testv1.RegisterTestService(server, testservice.Service{})
	if kind == "ours" {
		l := must(ttrpcx.Listen(ctx, ttrpcx.ServerOptions{Address: path}))
		go func() { log.Fatal(ttrpcx.Serve(ctx, server, l)) }()
	} else {
		l := must(net.Listen("unix", path))
		go func() { log.Fatal(server.Serve(ctx, l)) }()
	}
	for stdin := bufio.NewScanner(os.Stdin); stdin.Scan(); {
		fmt.Println(int64(cpuTime()))
	}
}

func workAsClient(kind, path string) {
	dial := func() (net.Conn, error) { return net.Dial("unix", path) }
	if kind == "ours" {
		dial = func() (net.Conn, error) {
			return ttrpcx.Dial(context.Background(), ttrpcx.ClientOptions{Address: path})
		}
	}
	client := testv1.NewTestClient(ttrpc.NewClient(must(dial())))
	for stdin := bufio.NewScanner(os.Stdin); stdin.Scan(); {
		var callers, size int
		must(fmt.Sscan(stdin.Text(), &callers, &size))
		request := &testv1.UnaryRequest{Foo: strings.Repeat("x", size)}
		var group sync.WaitGroup
		var calls atomic.Int64
		cpu, start := cpuTime(), time.Now()
		for range callers {
			group.Go(func() {
				for ; time.Since(start) < window; calls.Add(1) {
					must(client.Unary(context.Background(), request))
				}
			})
		}
		group.Wait()
		fmt.Println(calls.Load(), int64(time.Since(start)), int64(cpuTime()-cpu))
	}
}

// must ends a worker if there is an error, and with it the benchmark that waits for an answer.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
