// Package bench has the messages of net/rpc's service, which no generator writes.
package bench

// Message is both request and response of Bench.Echo.
type Message struct {
	ID      uint64
	Payload []byte
}

// None is what Bench.Hold takes and returns.
type None struct{}
