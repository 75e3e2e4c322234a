//go:build linux

package e2e

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

var (
	chaosFor    = flag.Duration("for", 10*time.Second, "`duration` of TestChaos")
	chaosSeed   = flag.Uint64("seed", 1, "`number` that determines what TestChaos does; 0 means a new one each time")
	chaosOnly   = flag.String("only", "", "`regexp` for the names of the attacks of TestChaos, such as metadata")
	chaosStrict = flag.Bool("strict", false, "let TestChaos do its worst, and fail if the server is two seconds late")
)

// allowance is how long a server may take to answer, and to end after its -shutdown-timeout.
func allowance() time.Duration {
	if *chaosStrict {
		return 2 * time.Second
	}
	return patience
}

// TestChaos attacks servers with many peers at once, and stops, kills and restarts them meanwhile. These must hold:
//
//   - memory: the server's peak RSS stays under a bound that its options tell,
//   - service: callers who keep the rules get answers, unless the attackers are the same user,
//   - stop: SIGTERM ends the server in time, and its exit code tells whether calls were cut off,
//   - delivery: no message runs twice, and its caller knows what became of it.
//
// At the end of each round, the server has as many goroutines and descriptors as a new one.
func TestChaos(t *testing.T) {
	interceptor.ContainerdLog(slog.New(slog.DiscardHandler)) // cancelled calls are not worth a line
	seed := *chaosSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	places := []func(testing.TB) *place{unixPlace, tcpPlace, tlsPlace}
	start := time.Now()
	for number := 0; number < len(places) || time.Since(start) < *chaosFor; number++ {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			r := newRound(seed, uint64(number))
			r.place = places[number%len(places)](t)
			r.run(t)
			if t.Failed() {
				t.Logf("this was -seed %d, round %d: %v", seed, number, r)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("seed %d", seed)
}

// round is a plan, and what comes of it.
type round struct {
	rng       *rand.Rand
	place     *place
	flags     []string
	shutdown  time.Duration
	most      int   // connections
	memory    int64 // that calls may hold
	attackers []attacker
	stops     []stop

	victim  *victim
	ledger  *ledger
	callers []*caller
	server  *watched
	records []string // of all servers
}

type attacker struct {
	attack
	user int
}

// stop is a signal to a server.
type stop struct {
	after  time.Duration
	signal syscall.Signal
}

func newRound(seed, number uint64) *round {
	rng := rand.New(rand.NewPCG(seed, number))
	// Timeouts that are shorter would meet callers who keep the rules, on a machine that has much else to do.
	timeout, kinds, peers, stops, wait := 20*time.Second, 4, 2, 1, time.Second
	if *chaosStrict {
		timeout, kinds, peers, stops, wait = time.Duration(1+rng.IntN(5))*time.Second, 6, 4, 3, 5*time.Second
	}
	maxCalls, maxMemory := 64+rng.IntN(64), oneOf(rng, 128, 160, 192)
	r := &round{
		rng:      rng,
		shutdown: time.Duration(500+rng.IntN(1500)) * time.Millisecond,
		most:     200 + rng.IntN(400),
		memory:   int64(maxMemory) * mib,
		victim:   &victim{maxCalls: maxCalls},
	}
	r.flags = []string{
		"-max-calls", strconv.Itoa(maxCalls),
		"-max-user-calls", strconv.Itoa(512 + rng.IntN(512)),
		"-max-memory", fmt.Sprint(maxMemory, "MiB"),
		"-max-connections", strconv.Itoa(r.most),
		"-max-user-connections", strconv.Itoa(r.most / 8),
		"-io-timeout", timeout.String(),
		"-shutdown-timeout", r.shutdown.String(),
	}
	// User 0 keeps the rules. 1 and 2 do anything, and together they may not take all of the memory. The others send
	// frames that must get an exact answer.
	chosen := slices.DeleteFunc(slices.Clone(attacks[1:]), func(a attack) bool {
		return !regexp.MustCompile(*chaosOnly).MatchString(a.name)
	})
	for range 2 + rng.IntN(kinds) {
		a := oneOf(rng, chosen...)
		for range 1 + rng.IntN(peers) {
			r.attackers = append(r.attackers, attacker{a, 1 + rng.IntN(2)})
		}
	}
	for user := 3; user < 5; user++ {
		r.attackers = append(r.attackers, attacker{attacks[0], user})
	}
	for range 1 + rng.IntN(stops) {
		signal := oneOf(rng, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL)
		r.stops = append(r.stops, stop{time.Duration(rng.Int64N(int64(wait))), signal})
	}
	return r
}

func (r *round) String() string {
	var parts []string
	for _, a := range attacks {
		var users []int
		for _, other := range r.attackers {
			if other.name == a.name {
				users = append(users, other.user)
			}
		}
		if len(users) > 0 {
			parts = append(parts, fmt.Sprintf("%s %v", a.name, users))
		}
	}
	return fmt.Sprintf("%s %v; users that %s; stops %v",
		r.place.name, r.flags, strings.Join(parts, ", "), r.stops)
}

func (r *round) run(t *testing.T) {
	descriptors, goroutines := r.place.fresh(t)
	r.victim.unfair = !r.place.fair
	r.ledger = &ledger{victim: r.victim, fates: map[string]fate{}}
	clean := map[string]bool{}
	r.start(t)
	endCallers := r.startCallers(t)
	ctx, cancel := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	for i, a := range r.attackers {
		p := &peer{
			victim: r.victim,
			rng:    rand.New(rand.NewPCG(r.rng.Uint64(), uint64(i))),
			dial:   func() (net.Conn, error) { return r.place.dial(a.user) },
			knock:  func() (net.Conn, error) { return r.place.knock(a.user) },
		}
		attackers.Go(func() {
			if err := a.run(ctx, p); err != nil {
				r.ledger.fail(fmt.Errorf("%s: %w", a.name, err))
			}
		})
	}
	for _, s := range r.stops {
		rest(t.Context(), s.after)
		r.waitServed(t)
		clean[r.records[len(r.records)-1]] = r.stop(t, s.signal)
		r.start(t)
	}
	r.waitServed(t)
	cancel()
	attackers.Wait()
	endCallers()
	r.wantPeak(t)
	r.place.settle(t, r.server, descriptors)
	if got := r.server.goroutines(t); len(got) > goroutines {
		t.Errorf("the server has %d goroutines, want %d as in a new one:\n%s",
			len(got), goroutines, strings.Join(got, "\n\n"))
	}
	r.report(t)
	for size, worst := range r.ledger.worst {
		if worst > allowance() {
			t.Errorf("a message of %d bytes waited for %v", sizes[size], worst)
		}
	}
	r.ledger.wantDelivered(t, r.records, clean)
	for _, err := range r.ledger.wrong {
		t.Error(err)
	}
}

// start starts a server.
func (r *round) start(t testing.TB) {
	t.Helper()
	record := filepath.Join(t.TempDir(), "record")
	r.records = append(r.records, record)
	flags := append(append([]string{"-record", record}, r.place.flags...), r.flags...)
	r.server = startWatched(t, r.place.address, flags...)
	r.victim.epoch.Add(2 - r.victim.epoch.Load()%2) // the first one is 2, because callers start with 0
	go r.server.limitMemory(2 << 30)
}

// startCallers starts the callers who keep the rules, and returns a function that ends them.
func (r *round) startCallers(t testing.TB) (end func()) {
	t.Helper()
	options := r.place.options
	options.Logger = slog.New(slog.DiscardHandler)
	ours, err := ttrpcx.NewClient(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	add := func(name string, client func() (testv1.TestClient, error), close func()) {
		c := &caller{ledger: r.ledger, name: name, rng: rand.New(rand.NewPCG(r.rng.Uint64(), 0)), client: client}
		r.callers = append(r.callers, c)
		group.Go(func() {
			defer close()
			c.run(ctx)
		})
	}
	for i := range 3 {
		add(fmt.Sprint("ours", i), func() (testv1.TestClient, error) { return testv1.CallTest(ours), nil }, func() {})
		stock, end := stockClient(func() (net.Conn, error) { return r.place.dial(0) })
		add(fmt.Sprint("stock", i), stock, end)
	}
	return func() {
		cancel()
		group.Wait()
		_ = ours.Close()
	}
}

// waitServed waits until each caller has had an answer from the server.
func (r *round) waitServed(t testing.TB) {
	t.Helper()
	if !r.place.fair {
		return
	}
	epoch := r.victim.epoch.Load()
	for _, c := range r.callers {
		r.server.until(t, "serving "+c.name, func() bool { return c.served(epoch) })
	}
}

// stop ends the server with a signal, and reports whether it exited with 0.
func (r *round) stop(t testing.TB, signal syscall.Signal) bool {
	t.Helper()
	r.victim.epoch.Add(1)
	r.wantPeak(t)
	start := time.Now()
	r.server.Signal(signal)
	select {
	case <-r.server.Ended():
	case <-time.After(r.shutdown + allowance()):
		t.Fatalf("the server still runs %v after %v", time.Since(start), signal)
	}
	code := r.server.ExitCode()
	log := r.server.Stderr()
	t.Logf("%v after %v: exit code %d", signal, time.Since(start).Round(time.Millisecond), code)
	lost := strings.Contains(log, "ERROR server stop")
	if signal == syscall.SIGTERM && (code != 0 && code != 1 || lost != (code == 1)) {
		t.Errorf("exit code is %d, and the log says that something was lost: %v", code, lost)
	}
	r.server.wantNoRace(t)
	return code == 0
}

// wantPeak fails the test if the server has used more memory than its options tell: twice what calls may hold, because
// the collector lets the heap double, 32 KiB for each connection, and what any server needs.
func (r *round) wantPeak(t testing.TB) {
	t.Helper()
	peak, limit := r.server.memory(t, "VmHWM"), 2*r.memory+int64(r.most)*32<<10+40*mib
	t.Logf("peak RSS %d MiB", peak/mib)
	if peak > limit && !proctest.Race {
		t.Errorf("the server's peak RSS is over %d MiB", limit/mib)
	}
}

func (r *round) report(t testing.TB) {
	t.Helper()
	v, l := r.victim, r.ledger
	t.Logf("%v", r)
	t.Logf("%d frames on %d connections, of which %d were cut off; %d exact answers",
		v.sent.Load(), v.connections.Load(), v.cutOff.Load(), v.answered.Load())
	t.Logf("good callers: messages %d answered, %d may have run, %d not run; waits of up to %v for %v bytes",
		l.counts[answered], l.counts[mayHaveRun], l.counts[notRun], l.worst, sizes)
}

// fresh returns how many descriptors and goroutines a server has that has served one call.
func (p *place) fresh(t testing.TB) (descriptors, goroutines int) {
	t.Helper()
	s := startWatched(t, p.address, p.flags...)
	descriptors = s.descriptors(t)
	p.settle(t, s, descriptors)
	return descriptors, len(s.goroutines(t))
}

// settle waits until the server has no more descriptors than at its start, and no handler is running. It makes a call,
// so that the server has done what it does once.
func (p *place) settle(t testing.TB, s *watched, descriptors int) {
	t.Helper()
	closed := func() bool { return s.descriptors(t) <= descriptors }
	s.until(t, "closing its descriptors", closed)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	get, end := stockClient(func() (net.Conn, error) { return p.dial(0) })
	defer func() { end() }()
	client, err := get()
	if err == nil { // this call outlasts all others
		_, err = client.Unary(ctx, &testv1.UnaryRequest{Foo: slow})
	}
	if err != nil {
		t.Fatal(err)
	}
	end()
	s.until(t, "closing its descriptors", closed)
}
