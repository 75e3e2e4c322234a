// Package control is how the runner talks with the processes of a contender: one line of JSON for each command on their
// standard input, one for each answer on their standard output.
package control

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"example.com/ttrpc-starter/bench/internal/endpoint"
	"example.com/ttrpc-starter/bench/result"
	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// Command is what a process is asked to do. Which fields count depends on Do.
type Command struct {
	Do       string            `json:"do"`
	Endpoint endpoint.Endpoint `json:"endpoint,omitzero"`
	Case     result.Case       `json:"case,omitzero"`
	Time     time.Duration     `json:"time_ns,omitempty"`
	Count    int               `json:"count,omitempty"`
}

// Commands to a server.
const (
	Usage   = "usage"   // Answer.Usage since its start
	Memory  = "memory"  // Answer.Heap and Goroutines after a collection
	Held    = "held"    // Answer.Count of Hold calls that wait
	Release = "release" // end them, and all Hold calls to come
)

// Commands to a client.
const (
	Nothing = "nothing" // but answer
	First   = "first"   // connect to Endpoint as soon as it is there, make one call and close
	Load    = "load"    // connect to Endpoint unless connected and put Case on it for Time; Answer.Round
	Open    = "open"    // have Count connections to Endpoint, with a call on each
	Hold    = "hold"    // start Count Hold calls on one connection to Endpoint; answers soon
	Finish  = "finish"  // wait for the Hold calls' end; Answer.Count of those that succeeded
)

// Answer is what came of a Command.
type Answer struct {
	Error       string       `json:"error,omitempty"`
	Unsupported bool         `json:"unsupported,omitempty"`
	Address     string       `json:"address,omitempty"` // a server's first line, without a command
	Round       result.Round `json:"round,omitzero"`
	Usage       result.Usage `json:"usage,omitzero"`
	Heap        int64        `json:"heap,omitempty"`
	Goroutines  int          `json:"goroutines,omitempty"`
	Count       int          `json:"count,omitempty"`
}

// Flags are those of every contender's process.
type Flags struct {
	Endpoint endpoint.Endpoint
	MaxCalls int // that a server runs at once on one connection; 0 is the contender's default
	Floor    heapfloor.Size
}

// Args returns the flags as the command line that Start reads.
func (f Flags) Args() []string {
	return []string{
		"-address=" + f.Endpoint.Address, "-certs=" + f.Endpoint.Certs,
		fmt.Sprintf("-max-calls=%d", f.MaxCalls), "-heap-floor=" + f.Floor.String(),
	}
}

// Start makes the process what the flags say. Ctrl-C is for the runner alone: it ends its processes itself.
func Start() Flags {
	signal.Ignore(os.Interrupt)
	var f Flags
	flag.StringVar(&f.Endpoint.Address, "address", "", "`address` to listen at")
	flag.StringVar(&f.Endpoint.Certs, "certs", "", "`directory` with certificates")
	flag.IntVar(&f.MaxCalls, "max-calls", 0, "`number` of calls of one connection that run at once")
	flag.Var(&f.Floor, "heap-floor", "`size` up to which the heap may grow before it is collected")
	flag.Parse()
	if _, err := heapfloor.Set(f.Floor); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return f
}

// Answers obeys the commands until there are no more, or an answer cannot be written: the runner is gone then.
func Answers(do func(Command) Answer) {
	commands := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var c Command
		if commands.Decode(&c) != nil || Say(do(c)) != nil {
			return
		}
	}
}

// Say writes one answer.
func Say(a Answer) error { return json.NewEncoder(os.Stdout).Encode(a) }

// UsageNow returns what the process has used since its start, except memory.
func UsageNow() result.Usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return result.Usage{CPU: cpu(), Allocs: m.Mallocs, Alloced: m.TotalAlloc, GCs: m.NumGC}
}

// Since returns the difference of two usages.
func Since(before, now result.Usage) result.Usage {
	d := result.Usage{
		CPU: now.CPU - before.CPU, Allocs: now.Allocs - before.Allocs, Alloced: now.Alloced - before.Alloced,
		GCs: now.GCs - before.GCs,
	}
	if now.CPU < 0 {
		d.CPU = now.CPU
	}
	return d
}
