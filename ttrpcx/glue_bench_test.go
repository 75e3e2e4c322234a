package ttrpcx_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// BenchmarkGenerated compares the code of protoc-gen-go-ttrpcx with that of protoc-gen-go-ttrpc, whose streams have no
// interceptors, over servers and clients that are the same otherwise: a unary call, a message of a stream that is open,
// and a stream that is opened and ends without a message. They take turns in short windows, so that everything else
// that the machine does hits both alike. The figures are medians over the rounds:
//
//	x-plain    calls a second, as a multiple of what they are with protoc-gen-go-ttrpc alone
//	x-control  the same of a second pair with protoc-gen-go-ttrpc alone: what differs from 1 is noise
//
// Half a minute: go test -run - -bench Generated -benchtime 100x ./ttrpcx
func BenchmarkGenerated(b *testing.B) {
	clients := []testv1.TestClient{benchmarkPair(b, false), benchmarkPair(b, true), benchmarkPair(b, false)}
	streams := map[testv1.TestClient]testv1.Test_EchoClient{}
	for _, client := range clients {
		stream, err := client.Echo(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		streams[client] = stream
	}
	for _, c := range []struct {
		name string
		call func(context.Context, testv1.TestClient) error
	}{
		{"unary", func(ctx context.Context, client testv1.TestClient) error {
			_, err := client.Unary(ctx, &testv1.UnaryRequest{})
			return err
		}},
		{"message", func(_ context.Context, client testv1.TestClient) error {
			if err := streams[client].Send(&testv1.EchoRequest{}); err != nil {
				return err
			}
			_, err := streams[client].Recv()
			return err
		}},
		{"open", func(ctx context.Context, client testv1.TestClient) error {
			stream, err := client.Split(ctx, &testv1.SplitRequest{})
			if err != nil {
				return err
			}
			if _, err := stream.Recv(); err != io.EOF {
				return status.Errorf(codes.Internal, "the end is %v", err)
			}
			return nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var plain, control []float64
			for b.Loop() {
				speeds := make([]float64, len(clients))
				for i := range 2 * len(clients) {
					i = min(i, 2*len(clients)-1-i) // up and down again, so that a drift during the round cancels out
					start, calls := time.Now(), 0.0
					for ; time.Since(start) < 20*time.Millisecond; calls++ {
						if err := c.call(b.Context(), clients[i]); err != nil {
							b.Fatal(err)
						}
					}
					speeds[i] += calls / time.Since(start).Seconds()
				}
				plain = append(plain, 2*speeds[1]/(speeds[0]+speeds[2]))
				control = append(control, speeds[2]/speeds[0])
			}
			b.ReportMetric(slices.Sorted(slices.Values(plain))[len(plain)/2], "x-plain")
			b.ReportMetric(slices.Sorted(slices.Values(control))[len(control)/2], "x-control")
			b.ReportMetric(0, "ns/op") // means nothing here
		})
	}
}

// benchmarkPair returns a client of a server of its own.
func benchmarkPair(b *testing.B, generated bool) testv1.TestClient {
	b.Helper()
	address, logger := socketPath(b), slog.New(slog.DiscardHandler)
	server, err := ttrpcx.NewServer(ttrpcx.ServerOptions{Address: address, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	if generated {
		testv1.HandleTest(server, testservice.Service{})
	} else {
		testv1.RegisterTestService(server.TTRPC, testservice.Service{})
	}
	l, err := ttrpcx.Listen(b.Context(), ttrpcx.ServerOptions{Address: address, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	client, err := ttrpcx.NewClient(b.Context(), ttrpcx.ClientOptions{Address: address, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = client.Close()
		stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	if generated {
		return testv1.CallTest(client)
	}
	return testv1.NewTestClient(client.TTRPC)
}
