package runner

import (
	"time"

	"example.com/ttrpc-starter/bench/result"
)

// Contender is a result.Contender together with how it is run.
type Contender struct {
	result.Contender
	Server, Client string // binaries
	Own            bool   // the server is not also another one's, so its footprint is measured
	Loads          bool   // it takes the runner's commands, so that loads can be measured
	Limits         []int  // of calls on one connection with which calls in flight are measured; 0 is its default
}

// unlimited is as many calls as are made.
const unlimited = -1

// Floor is the heap floor of the contenders that have one.
const Floor = 64 << 20

// Contenders returns all contenders in the order of the tables.
func Contenders() []Contender {
	floor := func(c Contender) Contender {
		c.Name, c.Title = c.Name+"-floor", c.Title+" with heap floor"
		c.About = "The same, with a heap floor of 64 MiB in both processes."
		c.HeapFloor, c.Own = Floor, false
		return c
	}
	contender := func(name, title, about string) Contender {
		return Contender{
			Contender: result.Contender{Name: name, Title: title, About: about},
			Server:    name + "-server", Client: name + "-client", Own: true, Loads: true, Limits: []int{0},
		}
	}
	ttrpc := contender("ttrpc", "stock ttrpc",
		"protoc-gen-go-ttrpc's code on ttrpc as it is, both ends on plain connections.")
	ours := contender("ours", "ours",
		"The same code behind ttrpcx on both ends, limits and guard at their defaults, no interceptors.")
	ours.Limits = []int{0, unlimited}
	control := ours
	control.Name, control.Title = "control", "ours again"
	control.About = "Ours once more: how it differs from ours is noise."
	control.ControlOf, control.Limits = "ours", nil
	control.Server = "control-server" // a copy, because processes of one file share memory
	grpc := contender("grpc", "grpc-go", "protoc-gen-go-grpc's code on grpc-go at its defaults.")
	connect := contender("connect", "connect-go",
		"protoc-gen-connect-go's code with the Connect protocol on net/http's HTTP/2, without TLS except over TLS.")
	connect.Limits = []int{unlimited} // beyond its limit, net/http's client stalls if it is held to one connection
	connectGRPC := connect
	connectGRPC.Name, connectGRPC.Title = "connect-grpc", "connect-go, gRPC protocol"
	connectGRPC.Client = "connect-grpc-client"
	connectGRPC.About, connectGRPC.Own = "The same server; the client speaks gRPC.", false
	drpc := contender("drpc", "drpc",
		"protoc-gen-go-drpc's code; a connection takes one call at a time, so drpc's pool has one for each caller.")
	netrpc := contender("netrpc", "net/rpc",
		"The standard library's net/rpc with gob; no .proto, no deadlines, no streams.")
	raw := contender("raw", "raw socket",
		"Length-prefixed messages echoed on a connection for each caller, no calls at all: the physical limit.")

	server := contender("server", "this starter's server",
		"A server as the starter's own: mutual TLS, peer checks, limits, logs, interceptors, drain.")
	server.Server, server.Client, server.Loads = "starter-server", "starter-client", false
	grpcServer := contender("grpc-server", "grpc-go server, same features",
		"The same server written with grpc-go: the same flags, logs, peer checks, mutual TLS, limits and drain.")
	grpcServer.Server, grpcServer.Client, grpcServer.Loads = "starter-grpc-server", "grpc-client", false
	return []Contender{
		ttrpc, floor(ttrpc), ours, floor(ours), control, grpc, floor(grpc), connect, connectGRPC, drpc, netrpc, raw,
		server, grpcServer,
	}
}

// Suite is what is measured.
type Suite struct {
	Name  string
	Loads []Load

	Starts int           // rounds of cold starts
	Busy   time.Duration // the load after a cold start
	Quiet  time.Duration // before memory is looked at again

	Idle     []int // connections, ascending
	InFlight int   // calls; 0 is none
}

// Load is a case and how long it is measured.
type Load struct {
	result.Case
	Rounds       int
	Warm, Window time.Duration
}

// goals are the cases that the goals are about.
var goals = []result.Case{
	{Transport: "unix", Kind: "unary", Payload: 0, Callers: 1},
	{Transport: "unix", Kind: "unary", Payload: 0, Callers: 16},
	{Transport: "unix", Kind: "unary", Payload: 0, Callers: 128},
	{Transport: "unix", Kind: "unary", Payload: 64 << 10, Callers: 16},
	{Transport: "unix", Kind: "unary", Payload: 1 << 20, Callers: 1},
}

// Quick measures the goals and a stream in less than two minutes.
func Quick() Suite {
	s := Suite{
		Name: "quick", Starts: 3, Busy: 200 * time.Millisecond, Quiet: time.Second,
		Idle: []int{1000}, InFlight: 1000,
	}
	for _, c := range append(goals, result.Case{Transport: "unix", Kind: "stream", Payload: 0, Callers: 1}) {
		s.Loads = append(s.Loads, Load{c, 3, 40 * time.Millisecond, 150 * time.Millisecond})
	}
	return s
}

// Full measures everything in less than twenty minutes.
func Full() Suite {
	s := Suite{
		Name: "full", Starts: 3, Busy: time.Second, Quiet: 10 * time.Second,
		Idle: []int{1, 1000, 10000}, InFlight: 10000,
	}
	isGoal := map[result.Case]bool{}
	for _, c := range goals {
		isGoal[c] = true
	}
	add := func(transport, kind string, payload int, callers ...int) {
		for _, n := range callers {
			c := result.Case{Transport: transport, Kind: kind, Payload: payload, Callers: n}
			if isGoal[c] {
				s.Loads = append(s.Loads, Load{c, 7, 150 * time.Millisecond, 500 * time.Millisecond})
			} else {
				s.Loads = append(s.Loads, Load{c, 3, 80 * time.Millisecond, 250 * time.Millisecond})
			}
		}
	}
	for _, payload := range []int{0, 1 << 10, 64 << 10, 1 << 20} {
		add("unix", "unary", payload, 1, 4, 16, 64, 128)
	}
	add("unix", "stream", 0, 1, 16)
	add("unix", "stream", 1<<10, 1, 16)
	add("unix", "stream", 64<<10, 1)
	for _, transport := range []string{"tcp", "tls"} {
		add(transport, "unary", 0, 1, 16, 128)
		add(transport, "unary", 64<<10, 16)
		add(transport, "unary", 1<<20, 1)
	}
	return s
}
