package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/ttrpc-starter/internal/paired"
	"example.com/ttrpc-starter/internal/proctest"
	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
)

// serveDirect makes this program the gRPC server that the benchmark calls directly.
const serveDirect = "TTGATE_TEST_SERVE"

// serve serves until standard input ends, and prints its address.
func serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	probev1.RegisterProbeServer(server, direct{})
	fmt.Fprintf(os.Stderr, "gate start address=tcp://%s\n", l.Addr()) // as the gate prints it
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	return server.Serve(l)
}

// BenchmarkUnary compares a call through each of the gate's listeners with one of a gRPC server that is called
// directly, in windows that alternate. All are processes of their own, and log no calls.
func BenchmarkUnary(b *testing.B) {
	_, backend := probe(b, "-max-log-lines", "1")
	g := gate(b, backend, "-max-log-lines", "1")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveDirect+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	p := proctest.Start(b, cmd)
	b.Cleanup(func() { _ = stdin.Close() })
	p.WaitFor("\n")
	address := started.FindStringSubmatch(p.Stderr())[1]
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	clients := []probev1.ProbeClient{
		probev1.NewProbeClient(conn), probev1.NewProbeClient(g.grpc()), probev1.NewProbeClient(g.alone().grpc()),
	}
	for _, size := range []int{0, 1024, 65536} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			req := &probev1.UnaryRequest{Data: make([]byte, size)}
			var took [3][]float64 // of a call, in µs
			for b.Loop() {
				var round [3]float64
				for i := range paired.Round(len(clients)) {
					round[i] += window(b, clients[i], req) / 2 * 1e6
				}
				for i := range round {
					took[i] = append(took[i], round[i])
				}
			}
			for i, name := range []string{"direct", "gate", "gate-grpc"} {
				b.ReportMetric(paired.Median(took[i]), "µs-"+name)
				if i > 0 {
					ratios := make([]float64, len(took[i]))
					for j := range ratios {
						ratios[j] = took[i][j] / took[0][j]
					}
					low, high := paired.Interval(ratios)
					b.ReportMetric(paired.Median(ratios), "x-"+name)
					b.ReportMetric(low, "x-"+name+"-low")
					b.ReportMetric(high, "x-"+name+"-high")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// window makes calls for a while, and returns how long one took.
func window(b *testing.B, client probev1.ProbeClient, req *probev1.UnaryRequest) float64 {
	start := time.Now()
	for n := 1; ; n++ {
		if _, err := client.Unary(context.Background(), req); err != nil {
			b.Fatal(err)
		}
		if took := time.Since(start); took > 40*time.Millisecond {
			return took.Seconds() / float64(n)
		}
	}
}

type direct struct {
	probev1.UnimplementedProbeServer
}

func (direct) Unary(_ context.Context, r *probev1.UnaryRequest) (*probev1.UnaryResponse, error) {
	return &probev1.UnaryResponse{Data: r.GetData()}, nil
}
