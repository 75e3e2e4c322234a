package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	"example.com/ttrpc-starter/internal/paired"
	"example.com/ttrpc-starter/internal/proctest"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// BenchmarkStream compares ttcurl with grpcurl: each prints 100,000 messages of one stream, from a server of ttrpcx and
// of grpc-go. They take turns, so that what else the machine does hits both alike.
//
//	x-grpcurl               seconds that ttcurl takes, as a multiple of grpcurl's: the median over the rounds
//	x-grpcurl-low, -high    the 95 % interval of that median, from a bootstrap
//	x-grpcurl-cpu           CPU seconds, as the same multiple
//	s-ttcurl, s-grpcurl     seconds that each takes; medians
//
// Half a minute: go test -run - -bench Stream -benchtime 10x ./ttcurl
func BenchmarkStream(b *testing.B) {
	dir := b.TempDir()
	build := exec.Command("go", "install", "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4")
	build.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.v1.Test",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Split", Handler: split, ServerStreams: true}},
		Metadata:    "test/v1/test.proto",
	}, nil)
	reflection.Register(server)
	go server.Serve(l)
	b.Cleanup(server.Stop)
	ours := serve(b, ttrpcx.ServerOptions{Address: proctest.Socket(b)})

	const count = 100_000
	data := `{"text":"` + strings.Repeat("word ", count) + `"}`
	commands := [2][]string{
		{proctest.Exe(bin, "ttcurl"), "-d", "@", ours, "test.v1.Test/Split"},
		{proctest.Exe(dir, "grpcurl"), "-plaintext", "-d", "@", l.Addr().String(), "test.v1.Test/Split"},
	}
	run := func(args []string) (wall, cpu time.Duration) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(data)
		var lines counter
		cmd.Stdout = &lines
		start := time.Now()
		if err := cmd.Run(); err != nil || lines != 3*count {
			b.Fatalf("%s: %v, %d lines", args[0], err, lines)
		}
		return time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	var walls [2][]float64
	var ratios, cpus []float64
	round := func() {
		var wall, cpu [2]time.Duration
		for i := range paired.Round(2) {
			w, c := run(commands[i])
			wall[i], cpu[i] = wall[i]+w, cpu[i]+c
		}
		for i := range walls {
			walls[i] = append(walls[i], wall[i].Seconds()/2)
		}
		ratios = append(ratios, wall[0].Seconds()/wall[1].Seconds())
		cpus = append(cpus, cpu[0].Seconds()/cpu[1].Seconds())
	}
	for b.Loop() {
		round()
	}
	low, high := paired.Interval(ratios)
	for name, value := range map[string]float64{
		"x-grpcurl": paired.Median(ratios), "x-grpcurl-low": low, "x-grpcurl-high": high,
		"x-grpcurl-cpu": paired.Median(cpus),
		"s-ttcurl":      paired.Median(walls[0]), "s-grpcurl": paired.Median(walls[1]), "ns/op": 0,
	} {
		b.ReportMetric(value, name)
	}
}

// split is the test service's method for grpc-go.
func split(_ any, stream grpc.ServerStream) error {
	request := new(testv1.SplitRequest)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(request.Text) {
		if err := stream.SendMsg(&testv1.SplitResponse{Word: word}); err != nil {
			return err
		}
	}
	return nil
}

// counter counts lines.
type counter int

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(strings.Count(string(b), "\n"))
	return len(b), nil
}
