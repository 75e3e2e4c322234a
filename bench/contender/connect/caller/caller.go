// Package caller is how connect-go's clients call, with either of their protocols.
package caller

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	benchv1 "example.com/ttrpc-starter/bench/gen/connect/bench/v1"
	"example.com/ttrpc-starter/bench/gen/connect/bench/v1/benchv1connect"
	"example.com/ttrpc-starter/bench/internal/client"
	"example.com/ttrpc-starter/bench/internal/endpoint"
)

// Dial returns what connects to e with these options over one connection of HTTP/2.
func Dial(options ...connect.ClientOption) client.Dial {
	return func(_ context.Context, e endpoint.Endpoint) (client.Conn, error) {
		c := &caller{endpoint: e}
		transport := &http.Transport{
			DialContext: c.dial,
			Protocols:   new(http.Protocols),
			HTTP2:       &http.HTTP2Config{StrictMaxConcurrentRequests: true}, // or it would open further connections
		}
		url := "http://localhost"
		if e.Certs == "" {
			transport.Protocols.SetUnencryptedHTTP2(true)
		} else {
			config, err := e.Client()
			if err != nil {
				return nil, err
			}
			url, transport.TLSClientConfig = "https://localhost", config
			transport.Protocols.SetHTTP2(true)
		}
		c.bench = benchv1connect.NewBenchClient(&http.Client{Transport: transport}, url, options...)
		return c, nil
	}
}

type caller struct {
	endpoint endpoint.Endpoint
	bench    benchv1connect.BenchClient
	mu       sync.Mutex
	conns    []net.Conn
}

func (c *caller) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := c.endpoint.DialPlain(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
	return conn, nil
}

func (c *caller) Echo(ctx context.Context, id uint64, payload []byte) (uint64, []byte, error) {
	resp, err := c.bench.Echo(ctx, connect.NewRequest(&benchv1.EchoRequest{Id: id, Payload: payload}))
	if err != nil {
		return 0, nil, err
	}
	return resp.Msg.GetId(), resp.Msg.GetPayload(), nil
}

func (c *caller) Stream(ctx context.Context) (client.Stream, error) {
	return stream{c.bench.Stream(ctx)}, nil
}

func (c *caller) Hold(ctx context.Context) error {
	_, err := c.bench.Hold(ctx, connect.NewRequest(&benchv1.HoldRequest{}))
	return err
}

// Close closes what is open: net/http closes only what it takes for idle.
func (c *caller) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

type stream struct {
	bidi *connect.BidiStreamForClient[benchv1.StreamRequest, benchv1.StreamResponse]
}

func (s stream) Send(id uint64, payload []byte) error {
	return s.bidi.Send(&benchv1.StreamRequest{Id: id, Payload: payload})
}

func (s stream) Recv() (uint64, []byte, error) {
	resp, err := s.bidi.Receive()
	return resp.GetId(), resp.GetPayload(), err
}

func (s stream) CloseSend() error { return s.bidi.CloseRequest() }
