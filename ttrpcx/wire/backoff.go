package wire

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	// The growth and spread of the pause between attempts are those of gRPC's connection backoff, and so is the time
	// that an attempt may take: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md. The pauses
	// themselves are shorter than gRPC's, because a server on the same machine is back within milliseconds.
	backoffFactor     = 1.6
	backoffJitter     = 0.2
	attemptTimeout    = 20 * time.Second
	backoffBase       = 50 * time.Millisecond
	defaultBackoffMax = 5 * time.Second
)

// backoff says when the next attempt may be made after some that failed.
type backoff struct {
	base, max time.Duration // of the pause, before its random part
	failures  int           // in a row
	err       error         // of the latest one
	next      time.Time     // of the next attempt
}

// failed notes that an attempt has failed.
func (b *backoff) failed(err error) {
	pause := min(float64(b.base)*math.Pow(backoffFactor, float64(b.failures)), float64(b.max))
	b.failures++
	b.err = err
	b.next = time.Now().Add(time.Duration(pause * (1 + backoffJitter*(2*rand.Float64()-1))))
}

// succeeded notes that an attempt has led to something.
func (b *backoff) succeeded() { b.failures, b.err, b.next = 0, nil, time.Time{} }

// pause returns how long the next attempt has to wait.
func (b *backoff) pause() time.Duration { return time.Until(b.next) }
