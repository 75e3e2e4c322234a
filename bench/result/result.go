// Package result is what a run of the benchmark measured. The runner writes this form; the report, the charts and the
// comparison of two runs read it. It holds the raw rounds, and leaves nothing out: where something failed, it says how.
package result

import "time"

// Version is of this form; it goes up when a reader of older files would misread a newer one.
const Version = 1

// Run is one run of the benchmark.
type Run struct {
	Schema     string        `json:"$schema"`
	Version    int           `json:"version"`
	Suite      string        `json:"suite" jsonschema:"enum=quick,enum=full"`
	Started    time.Time     `json:"started"`
	Seconds    float64       `json:"seconds"`  // how long the run took
	Complete   bool          `json:"complete"` // false if it was interrupted
	Seed       uint64        `json:"seed"`     // of the random order
	Command    string        `json:"command"`  // that repeats it
	Machine    Machine       `json:"machine"`
	Modules    []Module      `json:"modules"`    // what the contenders are built from, by path
	Contenders []Contender   `json:"contenders"` // in the order in which tables show them
	Loads      []Load        `json:"loads"`
	Footprints []Footprint   `json:"footprints"`
	Idle       []Connections `json:"idle"`      // connections that wait
	InFlight   []InFlight    `json:"in_flight"` // calls that wait
}

// Machine is what the numbers depend on.
type Machine struct {
	OS         string  `json:"os"`
	Arch       string  `json:"arch"`
	Kernel     string  `json:"kernel"`
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	GOMAXPROCS int     `json:"gomaxprocs"`
	Governor   string  `json:"governor"` // of cpu0, or "unknown"
	Memory     int64   `json:"memory_bytes"`
	Go         string  `json:"go"`
	LoadStart  float64 `json:"load_start"` // 1-minute load average, -1 if unknown
	LoadEnd    float64 `json:"load_end"`
}

// Module is a module and the version that was measured.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
}

// Contender is one way to make the call.
type Contender struct {
	Name  string `json:"name"`  // as in Load and on the command line: ttrpc, ours, ours-floor, grpc, ...
	Title string `json:"title"` // for people
	About string `json:"about"` // one sentence: the code it is generated with, the protocol, its settings
	// HeapFloor in bytes holds for both processes, 0 for Go's defaults.
	HeapFloor int64 `json:"heap_floor_bytes"`
	// ControlOf names the contender that this one repeats: what differs between the two is noise.
	ControlOf string `json:"control_of,omitempty"`
}

// Case is a load that is put on every contender alike.
type Case struct {
	Transport string `json:"transport" jsonschema:"enum=unix,enum=tcp,enum=tls"`
	// Kind is unary, or stream: one bidirectional stream a caller, on which 32 messages are under way.
	Kind    string `json:"kind" jsonschema:"enum=unary,enum=stream"`
	Payload int    `json:"payload_bytes"` // in each direction
	Callers int    `json:"callers"`       // concurrent, on one connection
}

// Load is what one contender did under one case, round by round.
type Load struct {
	Case
	Contender string  `json:"contender"`
	Rounds    []Round `json:"rounds"`
}

// Round is one measured window. Error says why there is no measurement, and then all numbers are 0 and mean nothing.
type Round struct {
	Round       int           `json:"round"` // from 1; the contenders of one round are compared with each other
	Error       string        `json:"error,omitempty"`
	Unsupported bool          `json:"unsupported,omitempty"` // Error says what the contender does not have
	Calls       int64         `json:"calls"`                 // or messages of streams
	Seconds     float64       `json:"seconds"`
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	P999        time.Duration `json:"p999_ns"`
	Client      Usage         `json:"client"`
	Server      Usage         `json:"server"`
}

// Usage is what one process used in a round.
type Usage struct {
	CPU     time.Duration `json:"cpu_ns"` // user and system; -1 where the system does not tell
	Allocs  uint64        `json:"allocs"`
	Alloced uint64        `json:"alloced_bytes"`
	GCs     uint32        `json:"gcs"`
	// Memory when the load ended, in bytes; -1 where the system does not tell.
	RSS int64 `json:"rss_bytes"`
	PSS int64 `json:"pss_bytes"`
}

// Footprint is what a contender's server is before, and after, anything is asked of it.
type Footprint struct {
	Contender string `json:"contender"`
	Error     string `json:"error,omitempty"`
	// Binary and Stripped are built with -trimpath and CGO_ENABLED=0. Stripped has -ldflags='-s -w', too, and is what
	// runs. All but those of server and grpc-server have the runner's commands and TLS linked in, whose size is raw's.
	Binary   int64   `json:"binary_bytes"`
	Stripped int64   `json:"stripped_bytes"`
	Packages int     `json:"packages"` // linked, standard library included
	Modules  int     `json:"modules"`  // linked, its own and the standard library not counted
	Starts   []Start `json:"starts"`   // one a round
}

// Start is one cold start.
type Start struct {
	FirstReply time.Duration `json:"first_reply_ns"` // from the start of the server's process to its first reply
	IdleRSS    int64         `json:"idle_rss_bytes"` // of the server after that reply
	IdlePSS    int64         `json:"idle_pss_bytes"`
	AfterRSS   int64         `json:"after_rss_bytes"` // after a load, and ten seconds of quiet at most
	AfterPSS   int64         `json:"after_pss_bytes"`
}

// Connections is what a server pays for connections that wait, each after one call.
type Connections struct {
	Contender   string `json:"contender"`
	Error       string `json:"error,omitempty"`
	Connections int    `json:"connections"`
	RSS         int64  `json:"rss_bytes"`  // more than without connections
	Heap        int64  `json:"heap_bytes"` // in use after a collection, stacks included, more than without connections
	Goroutines  int    `json:"goroutines"` // more than without connections
}

// InFlight is what calls that wait in their handlers cost the server, all on one connection.
type InFlight struct {
	Contender string `json:"contender"`
	Error     string `json:"error,omitempty"`
	// Unsupported calls are those of a contender whose connections take one call at a time; Error says so.
	Unsupported bool    `json:"unsupported,omitempty"`
	Limit       int     `json:"limit"`   // of calls on one connection, as the server was told; 0 is its default
	Calls       int     `json:"calls"`   // made at once
	Reached     int     `json:"reached"` // the most that were in handlers at one time: a limit holds back the others
	Answered    int     `json:"answered"`
	Seconds     float64 `json:"seconds"`   // from the release of the handlers to the last answer
	RSS         int64   `json:"rss_bytes"` // more than before
	Goroutines  int     `json:"goroutines"`
}
