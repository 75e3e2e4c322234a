package report

import (
	"math/rand/v2"
	"time"

	"example.com/ttrpc-starter/bench/result"
)

// fake is a whole run with numbers of about the right size; what it measures is nothing.
func fake(seed uint64) *result.Run {
	r := rand.New(rand.NewPCG(seed, 1))
	run := &result.Run{
		Schema: "schema.json", Version: result.Version, Suite: "full", Complete: true, Seed: seed, Seconds: 1034,
		Started: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Command: "make bench",
		Machine: result.Machine{
			OS: "linux", Arch: "amd64", Kernel: "6.8.0", CPU: "Example CPU @ 2.60GHz", CPUs: 2, GOMAXPROCS: 2,
			Governor: "performance", Memory: 8 << 30, Go: "go1.26.8", LoadStart: 0.2, LoadEnd: 1.9,
		},
		Modules: []result.Module{
			{Path: "github.com/containerd/ttrpc", Version: "v1.2.10"},
			{Path: "google.golang.org/grpc", Version: "v1.85.0"},
		},
	}
	type speed struct {
		name, title string
		floor       int64
		control     string
		small       float64    // calls/s of stock with 1 caller
		by          [4]float64 // payload
	}
	speeds := []speed{
		{Stock, "stock ttrpc", 0, "", 1, [4]float64{1, 1, 1, 1}},
		{StockFloor, "stock ttrpc with heap floor", 64 << 20, "", 1.05, [4]float64{1, 1, 1.3, 2}},
		{Ours, "ours", 0, "", 1.2, [4]float64{1, 1, 1.1, 1.3}},
		{OursFloor, "ours with heap floor", 64 << 20, "", 1.3, [4]float64{1, 1, 2.4, 3}},
		{"control", "ours again", 0, Ours, 1.2, [4]float64{1, 1, 1.1, 1.3}},
		{GRPC, "grpc-go", 0, "", 0.5, [4]float64{1, 1, 2, 4}},
		{GRPCFloor, "grpc-go with heap floor", 64 << 20, "", 0.52, [4]float64{1, 1, 2.1, 5}},
		{"connect", "connect-go", 0, "", 0.2, [4]float64{1, 1, 3, 5}},
		{"connect-grpc", "connect-go, gRPC protocol", 0, "", 0.18, [4]float64{1, 1, 3, 6}},
		{"drpc", "drpc", 0, "", 1.1, [4]float64{1, 1, 1.4, 1.8}},
		{"netrpc", "net/rpc", 0, "", 1.15, [4]float64{1, 1, 1.2, 1.4}},
		{"raw", "raw socket", 0, "", 2.5, [4]float64{1, 1, 1.5, 1.8}},
	}
	for _, s := range speeds {
		run.Contenders = append(run.Contenders, result.Contender{
			Name: s.name, Title: s.title, About: "A contender of " + s.title + ".",
			HeapFloor: s.floor, ControlOf: s.control,
		})
	}
	wobble := func() float64 { return 1 + (r.Float64()-0.5)*0.06 }
	cases := []result.Case{}
	for _, payload := range []int{0, 1 << 10, 64 << 10, 1 << 20} {
		for _, callers := range []int{1, 4, 16, 64, 128} {
			cases = append(cases, unary(payload, callers))
		}
	}
	for _, transport := range []string{"tcp", "tls"} {
		cases = append(cases, result.Case{Transport: transport, Kind: "unary", Callers: 16})
	}
	cases = append(cases, result.Case{Transport: "unix", Kind: "stream", Payload: 1 << 10, Callers: 4})
	for _, c := range cases {
		weather := map[int]float64{}
		for _, s := range speeds {
			l := result.Load{Case: c, Contender: s.name}
			for round := 1; round <= 7; round++ {
				if weather[round] == 0 {
					weather[round] = 0.7 + r.Float64()*0.6
				}
				if s.name == "netrpc" && (c.Transport == "tls" || c.Kind == "stream") {
					l.Rounds = append(l.Rounds, result.Round{
						Round: round, Unsupported: true, Error: "net/rpc has no " + c.Kind,
					})
					continue
				}
				i := map[int]int{0: 0, 1 << 10: 1, 64 << 10: 2, 1 << 20: 3}[c.Payload]
				rate := 20000 * s.small * s.by[i] / (1 + float64(c.Payload)/4000) * wobble() * weather[round]
				rate *= map[int]float64{1: 1, 4: 1.6, 16: 2.2, 64: 2.6, 128: 2.8}[c.Callers]
				cpu := time.Duration(1.1e9 / 2)
				u := result.Usage{
					CPU: cpu, Allocs: uint64(rate * 12), Alloced: uint64(rate * 900), GCs: 20,
					RSS: 14 << 20, PSS: 12 << 20,
				}
				l.Rounds = append(l.Rounds, result.Round{
					Round: round, Calls: int64(rate), Seconds: 1, Client: u, Server: u,
					P50:  time.Duration(1e9 / rate * float64(c.Callers)),
					P99:  time.Duration(3e9 / rate * float64(c.Callers)),
					P999: time.Duration(9e9 / rate * float64(c.Callers)),
				})
			}
			run.Loads = append(run.Loads, l)
		}
	}
	for _, f := range []struct {
		name string
		mib  float64
	}{
		{Server, 6.1},
		{GRPCServer, 11.2},
		{Stock, 4.4},
		{Ours, 4.9},
		{"control", 4.9},
		{GRPC, 10.4},
		{"connect", 9.8},
		{"drpc", 6.6},
		{"netrpc", 4.1},
		{"raw", 2.2},
	} {
		p := result.Footprint{
			Contender: f.name, Binary: int64(f.mib * 1.5 * (1 << 20)), Stripped: int64(f.mib * (1 << 20)),
			Packages: int(f.mib * 30), Modules: int(f.mib),
		}
		for range 7 {
			rss := int64((f.mib + 3) * wobble() * (1 << 20))
			p.Starts = append(p.Starts, result.Start{
				FirstReply: time.Duration(8e6 * wobble()),
				IdleRSS:    rss, IdlePSS: rss - 1<<20, AfterRSS: rss * 2, AfterPSS: rss,
			})
		}
		run.Footprints = append(run.Footprints, p)
	}
	run.Contenders = append(run.Contenders,
		result.Contender{Name: Server, Title: "this starter's server"},
		result.Contender{Name: GRPCServer, Title: "grpc-go server, same features"})
	for _, name := range []string{Stock, Ours, GRPC, "drpc"} {
		for _, k := range []int{1, 1000, 10000} {
			run.Idle = append(run.Idle, result.Connections{
				Contender: name, Connections: k,
				RSS: int64(float64(k) * 23000 * wobble()), Heap: int64(k) * 15000, Goroutines: k * 2,
			})
		}
		run.InFlight = append(run.InFlight, result.InFlight{
			Contender: name, Calls: 10000, Reached: 10000, Answered: 10000, Seconds: 0.11,
			RSS: 110 << 20, Goroutines: 10000,
		})
	}
	return run
}
