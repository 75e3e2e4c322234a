// Scaledemo shows what several servers behind a balancer do: it starts three ttrpc servers with a ttgate each, on three
// loopback addresses, calls them through nginx and through grpc-go's round_robin, stops one node and kills another.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"text/template"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/cli"
	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
)

func main() { cli.Main("scaledemo", run) }

const synopsis = `Starts three ttrpc servers with a ttgate each, calls them through nginx and through grpc-go's
round_robin, stops one under load and kills another, and prints what came of it.`

const (
	callers = 16
	nodes   = 3
	slots   = 30 // of the chart, in each phase
)

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("scaledemo", synopsis)
	phase := flags.Duration("phase", 3*time.Second, "`duration` of each phase")
	only := flags.Bool("calculate", false, "start nothing, but print how connections and memory grow with the nodes")
	if err := cli.Parse(flags, args, stdout, stderr); err != nil {
		return err
	}
	if *only {
		return calculate(stdout)
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx = "/usr/sbin/nginx"; exec.Command(nginx, "-v").Run() != nil {
			return errors.New("nginx is not installed: on Debian, apt-get install nginx")
		}
	}
	dir, err := os.MkdirTemp("", "scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(stdout, "building the servers and the gateways")
	bin := dir + string(filepath.Separator)
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./ttgate", "./internal/probe")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	d := &demo{dir: dir, phase: *phase, out: stdout}
	defer d.stop()
	for i := range nodes {
		n, err := d.newNode(i)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
	}
	var failed error
	for _, b := range []struct {
		name string
		dial func() (*grpc.ClientConn, error)
	}{
		{"nginx", func() (*grpc.ClientConn, error) { return d.throughNginx(ctx, nginx) }},
		{"round_robin", d.roundRobin},
	} {
		fmt.Fprintf(stdout, "\nthrough %s, %d callers:\n\n", b.name, callers)
		conn, err := b.dial()
		if err == nil {
			err = d.balance(ctx, conn)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", b.name, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return failed
}

// node is a server and the gateway before it.
type node struct {
	address      string // HOST:PORT
	socket       string
	server, gate *exec.Cmd
}

type demo struct {
	dir   string
	phase time.Duration
	out   io.Writer
	nodes []*node
	nginx *exec.Cmd
}

// newNode starts a node. Each has a loopback address of its own, as machines have.
func (d *demo) newNode(i int) (*node, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", i+1))
	if err != nil {
		return nil, fmt.Errorf("the loopback interface of Linux has all of 127.0.0.0/8: %w", err)
	}
	n := &node{address: l.Addr().String(), socket: filepath.Join(d.dir, fmt.Sprint(i+1))}
	_ = l.Close()
	return n, n.start(d.dir)
}

// start starts what does not run, and waits until the gateway answers.
func (n *node) start(dir string) error {
	if n.server == nil {
		n.server = exec.Command(filepath.Join(dir, "probe"), "-address", "unix:"+n.socket, "-max-log-lines", "1")
		if err := n.server.Start(); err != nil {
			return err
		}
	}
	n.gate = exec.Command(filepath.Join(dir, "ttgate"), "-insecure", "-listen", "tcp://"+n.address,
		"-backend", "unix:"+n.socket, "-max-log-lines", "1")
	if err := n.gate.Start(); err != nil {
		return err
	}
	conn, err := grpc.NewClient(n.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		client := probev1.NewProbeClient(conn)
		_, err := client.Unary(context.Background(), new(probev1.UnaryRequest), grpc.WaitForReady(true))
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (n *node) end(signal syscall.Signal, commands ...**exec.Cmd) {
	for _, cmd := range commands {
		if *cmd != nil && (*cmd).Process != nil {
			_ = (*cmd).Process.Signal(signal)
			_ = (*cmd).Wait()
		}
		*cmd = nil
	}
}

func (d *demo) stop() {
	for _, n := range d.nodes {
		n.end(syscall.SIGKILL, &n.gate, &n.server)
	}
	if d.nginx != nil {
		_ = d.nginx.Process.Signal(syscall.SIGTERM)
		_ = d.nginx.Wait()
	}
}

//go:embed nginx.conf
var config string

func (d *demo) throughNginx(ctx context.Context, program string) (*grpc.ClientConn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	_ = l.Close()
	file, err := os.Create(filepath.Join(d.dir, "nginx.conf"))
	if err != nil {
		return nil, err
	}
	data := map[string]any{"Dir": d.dir, "Listen": address, "Nodes": d.addresses()}
	if err := errors.Join(template.Must(template.New("").Parse(config)).Execute(file, data), file.Close()); err != nil {
		return nil, err
	}
	d.nginx = exec.CommandContext(ctx, program, "-c", file.Name(), "-p", d.dir)
	if err := d.nginx.Start(); err != nil {
		return nil, err
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func (d *demo) addresses() []string {
	addresses := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		addresses[i] = n.address
	}
	return addresses
}

func (d *demo) roundRobin() (*grpc.ClientConn, error) {
	r := manual.NewBuilderWithScheme("nodes")
	var state resolver.State
	for _, a := range d.addresses() {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	r.InitialState(state)
	conn, err := grpc.NewClient(r.Scheme()+":///", grpc.WithResolvers(r),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err == nil {
		conn.Connect()
	}
	return conn, err
}

// balance runs the phases.
func (d *demo) balance(ctx context.Context, conn *grpc.ClientConn) error {
	defer conn.Close()
	_, err := probev1.NewProbeClient(conn).Unary(ctx, new(probev1.UnaryRequest), grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for conn.GetState() != connectivity.Ready {
		if !conn.WaitForStateChange(ctx, conn.GetState()) {
			return ctx.Err()
		}
	}
	time.Sleep(300 * time.Millisecond) // until all nodes are connected
	drained, killed := d.nodes[1], d.nodes[2]
	table := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "phase\tcalls\tnode 1\tnode 2\tnode 3\tfailed\topen calls then")
	chart := map[string][]string{}
	var wrong error
	none := func(int64) int { return 0 }
	for _, p := range []struct {
		name string
		do   func()               // in the midst of it
		most func(open int64) int // calls that may fail
	}{
		{"all are there", func() {}, none},
		{"node 2 is drained", func() { drained.end(syscall.SIGTERM, &drained.gate) }, none},
		{
			"node 3 is killed", func() { killed.end(syscall.SIGKILL, &killed.gate, &killed.server) },
			func(open int64) int { return int(open) },
		},
	} {
		r := d.load(ctx, conn, p.do)
		total := r.perNode[0] + r.perNode[1] + r.perNode[2]
		share := func(i int) string { return fmt.Sprintf("%.1f %%", 100*float64(r.perNode[i])/float64(total)) }
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%d\n",
			p.name, total, share(0), share(1), share(2), r.failures(), r.open)
		chart[p.name] = r.bars()
		if failed := r.failed(); failed > p.most(r.open) || failed != r.codes[codes.Unavailable] {
			wrong = errors.Join(wrong, fmt.Errorf("%s: %s failed, want at most %d, with Unavailable",
				p.name, r.failures(), p.most(r.open)))
		}
		for i := range nodes {
			part := float64(r.perNode[i]) * nodes / float64(total)
			if p.name == "all are there" && (part < 0.9 || part > 1.1) {
				wrong = errors.Join(wrong, fmt.Errorf("%s: node %d has %s of the calls, want a third within 10 %%",
					p.name, i+1, share(i)))
			}
		}
		for _, n := range d.nodes {
			if n.gate == nil {
				if err := n.start(d.dir); err != nil {
					return err
				}
			}
		}
		time.Sleep(1500 * time.Millisecond) // until balancers trust it again
	}
	_ = table.Flush()
	fmt.Fprintf(d.out, "\nCalls that each node answers, over the %v of a phase:\n\n", d.phase)
	for _, name := range slices.Sorted(maps.Keys(chart)) {
		fmt.Fprintf(d.out, "%s\n", name)
		for i, bar := range chart[name] {
			fmt.Fprintf(d.out, "  node %d %s\n", i+1, bar)
		}
	}
	return wrong
}

// result is what came of a phase.
type result struct {
	mu      sync.Mutex
	perNode [nodes]int
	slots   [nodes][slots]int
	codes   map[codes.Code]int
	open    int64 // calls when the node went
}

func (r *result) failed() (n int) {
	for _, k := range r.codes {
		n += k
	}
	return n
}

func (r *result) failures() string {
	if len(r.codes) == 0 {
		return "0"
	}
	var all []string
	for code, n := range r.codes {
		all = append(all, fmt.Sprintf("%d %s", n, code))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// bars draws what each node answered, a character for each slot.
func (r *result) bars() []string {
	most := 1
	for i := range nodes {
		most = max(most, slices.Max(r.slots[i][:]))
	}
	levels := []rune(" ▁▂▃▄▅▆▇█")
	bars := make([]string, nodes)
	for i := range nodes {
		for _, n := range r.slots[i] {
			bars[i] += string(levels[(n*(len(levels)-1)+most-1)/most])
		}
	}
	return bars
}

// load makes calls for a phase, and does something after a third of it.
func (d *demo) load(ctx context.Context, conn *grpc.ClientConn, do func()) *result {
	r := &result{codes: map[codes.Code]int{}}
	begin := time.Now()
	var open atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for ctx.Err() == nil && time.Since(begin) < d.phase {
				open.Add(1)
				answer, err := probev1.NewProbeClient(conn).Unary(ctx, &probev1.UnaryRequest{Act: probev1.Act_ACT_NODE})
				open.Add(-1)
				r.add(answer, err, int(time.Since(begin)*slots/d.phase))
			}
		})
	}
	select {
	case <-time.After(d.phase / 3):
	case <-ctx.Done():
	}
	r.open = open.Load()
	do()
	group.Wait()
	return r
}

func (r *result) add(answer *probev1.UnaryResponse, err error, slot int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.codes[status.Code(err)]++
		return
	}
	if name := filepath.Base(string(answer.GetData())); len(name) == 1 && name[0] > '0' && name[0] <= '0'+nodes {
		i := name[0] - '1'
		r.perNode[i]++
		r.slots[i][min(slot, slots-1)]++
	}
}
