//go:build unix

package wire

import (
	"context"
	"fmt"
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
)

// BenchmarkPaired reports how many calls a second both wrappers together make for each that stock ttrpc makes, as the
// median of many short rounds that alternate between the two, so that whatever else the machine does hits both alike; and
// the CPU time of client and server together that a call takes in the same rounds, likewise as a ratio.
func BenchmarkPaired(b *testing.B) {
	for _, callers := range []int{1, 4, 8, 16, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { paired(b, callers, 10) })
	}
	for _, size := range []int{64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { paired(b, 1, size) })
	}
}

func paired(b *testing.B, callers, size int) {
	connect := func(wrap bool) testv1.TestClient {
		c, s := unixPair(b)
		if wrap {
			c, s = newClientConn(b, c, ClientOptions{}), NewGuard(GuardOptions{}).Wrap(s)
		}
		serve(b, s, testservice.Service{})
		client := ttrpc.NewClient(c)
		b.Cleanup(func() { _ = client.Close() })
		return testv1.NewTestClient(client)
	}
	request := &testv1.UnaryRequest{Foo: strings.Repeat("x", size)}
	round := func(client testv1.TestClient, calls int) cost {
		var left atomic.Int64
		left.Store(int64(calls))
		start, cpu := time.Now(), cpuTime(b)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if _, err := client.Unary(context.Background(), request); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return cost{time.Since(start), cpuTime(b) - cpu}
	}

	stock, ours := connect(false), connect(true)
	const calls = 400
	perRound := max(calls*1000/(1000+size), 20*callers) // enough to reach a steady state
	round(stock, perRound)
	round(ours, perRound)
	var speed, cpu []float64
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		var s, o cost
		if i%2 == 0 {
			s = round(stock, perRound)
			o = round(ours, perRound)
		} else {
			o = round(ours, perRound)
			s = round(stock, perRound)
		}
		speed = append(speed, float64(s.wall)/float64(o.wall))
		cpu = append(cpu, float64(o.cpu)/float64(s.cpu))
	}
	b.ReportMetric(median(speed), "x-stock")
	b.ReportMetric(median(cpu), "x-stock-cpu")
	b.ReportMetric(float64(len(speed)), "rounds")
}

// cost is what a round took.
type cost struct{ wall, cpu time.Duration }

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(ratios []float64) float64 {
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}
