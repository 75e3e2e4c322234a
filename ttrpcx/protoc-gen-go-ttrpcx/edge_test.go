package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	edgev1 "example.com/ttrpc-starter/internal/testservice/gen/edge/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

// TestInterop has each kind of server answer each kind of client, in all methods of package edge.v1.
func TestInterop(t *testing.T) {
	for server, serve := range map[string]func(*testing.T, string){
		"stock": func(t *testing.T, path string) {
			server := stockServer(t)
			edgev1.RegisterEdgeService(server, edge{})
			edgev1.RegisterEdgeServiceService(server, edgeService{})
			edgev1.RegisterPlainService(server, shared{})
			edgev1.RegisterNothingService(server, nil)
			edgev1.RegisterOldService(server, shared{})
			edgev1.RegisterAgingService(server, shared{})
			edgev1.RegisterSecondEdgeService(server, shared{})
			serveStock(t, server, path)
		},
		"generated for stock": func(t *testing.T, path string) {
			server := stockServer(t)
			handleAll(server)
			serveStock(t, server, path)
		},
		"generated": serveGenerated,
	} {
		t.Run(server, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "t-") // testing's own can be too long for a socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "s")
			serve(t, path)
			stock := stockClient(t, path)
			ours, err := ttrpcx.NewClient(t.Context(), ttrpcx.ClientOptions{Address: path, Logger: silent})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ours.Close() })
			for client, c := range map[string]clients{
				"stock": {
					edgev1.NewEdgeClient(stock), edgev1.NewEdgeServiceClient(stock), edgev1.NewPlainClient(stock),
					edgev1.NewNothingClient(stock), edgev1.NewOldClient(stock), edgev1.NewAgingClient(stock),
					edgev1.NewSecondEdgeClient(stock),
				},
				"generated for stock": {
					edgev1.CallEdge(stock), edgev1.CallEdgeService(stock), edgev1.CallPlain(stock),
					edgev1.CallNothing(stock), callOld(stock), edgev1.CallAging(stock), edgev1.CallSecondEdge(stock),
				},
				"generated": {
					edgev1.CallEdge(ours), edgev1.CallEdgeService(ours), edgev1.CallPlain(ours),
					edgev1.CallNothing(ours), callOld(ours), edgev1.CallAging(ours), edgev1.CallSecondEdge(ours),
				},
			} {
				t.Run(client, func(t *testing.T) {
					if err := c.callAll(t.Context()); err != nil {
						t.Error(err)
					}
					// protoc-gen-go-ttrpc's own client calls a unary method by its name in the .proto file. No server
					// in Go knows it by that name.
					if client == "stock" {
						return
					}
					resp, err := c.edge.GetContext(t.Context(), new(emptypb.Empty))
					if err != nil || resp.GetValue() != "context" {
						t.Errorf("GetContext: %v, %v", resp, err)
					}
				})
			}
		})
	}
}

var silent = slog.New(slog.DiscardHandler)

// serveGenerated serves until the test ends.
func serveGenerated(t *testing.T, path string) {
	server, err := ttrpcx.NewServer(ttrpcx.ServerOptions{Address: path, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	handleAll(server)
	l, err := ttrpcx.Listen(t.Context(), ttrpcx.ServerOptions{Address: path, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func stockServer(t *testing.T) *ttrpc.Server {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// serveStock serves until the test ends.
func serveStock(t *testing.T, server *ttrpc.Server, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func stockClient(t *testing.T, path string) *ttrpc.Client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

type registrar interface {
	RegisterService(string, *ttrpc.ServiceDesc)
}

func handleAll(server registrar) {
	edgev1.HandleEdge(server, edge{})
	edgev1.HandleEdgeService(server, edgeService{})
	edgev1.HandlePlain(server, shared{})
	edgev1.HandleNothing(server, nil)
	edgev1.HandleOld(server, shared{}) //nolint:staticcheck // deprecated on purpose
	edgev1.HandleAging(server, shared{})
	edgev1.HandleSecondEdge(server, shared{})
}

func callOld(conn caller) edgev1.OldService {
	return edgev1.CallOld(conn) //nolint:staticcheck // as above
}

type caller interface {
	Call(ctx context.Context, service, method string, req, resp any) error
	NewStream(ctx context.Context, desc *ttrpc.StreamDesc, service, method string, req any) (ttrpc.ClientStream, error)
}

// clients are those of all services.
type clients struct {
	edge        edgev1.EdgeClient
	edgeService edgev1.EdgeServiceClient
	plain       edgev1.PlainService
	nothing     edgev1.NothingService // has no method to call
	old         edgev1.OldService
	aging       edgev1.AgingClient
	second      edgev1.SecondEdgeClient
}

// callAll returns an error unless each method gives back what it gets.
func (c clients) callAll(ctx context.Context) error {
	req := &edgev1.Shared{Text: "foo"}
	if r, err := c.edge.Call(ctx, &edgev1.Edges_Nested{Text: "foo"}); err != nil || r.GetText() != "foo" {
		return fmt.Errorf("Edge.Call: %v, %w", r, err)
	}
	for name, call := range map[string]func(context.Context, *edgev1.Shared) (*edgev1.Shared, error){
		"EdgeService.Call": c.edgeService.Call, "Plain.Get": c.plain.Get,
		"Old.Get": c.old.Get, "Aging.Get": c.aging.Get,
	} {
		if r, err := call(ctx, req); err != nil || r.GetText() != "foo" {
			return fmt.Errorf("%s: %v, %w", name, r, err)
		}
	}
	newStream, err := c.edge.NewStream(ctx, new(emptypb.Empty))
	if err := receives(newStream, err, (*wrapperspb.StringValue).GetValue, "foo"); err != nil {
		return fmt.Errorf("Edge.NewStream: %w", err)
	}
	serviceStream, err := c.edgeService.NewStream(ctx, req)
	if err := receives(serviceStream, err, (*edgev1.Shared).GetText, "foo"); err != nil {
		return fmt.Errorf("EdgeService.NewStream: %w", err)
	}
	watch, err := c.aging.Watch(ctx, req)
	if err := receives(watch, err, (*edgev1.Shared).GetText, "foo"); err != nil {
		return fmt.Errorf("Aging.Watch: %w", err)
	}
	conn, err := c.edge.Conn(ctx)
	if err == nil {
		err = conn.Send(wrapperspb.Int64(42))
	}
	if err == nil {
		_, err = conn.CloseAndRecv()
	}
	if err != nil {
		return fmt.Errorf("Edge.Conn: %w", err)
	}
	both, err := c.edge.Ttrpc(ctx)
	if err := exchanges(both, err, req); err != nil {
		return fmt.Errorf("Edge.ttrpc: %w", err)
	} else if err := receives(both, nil, (*wrapperspb.StringValue).GetValue, "foo"); err != nil {
		return fmt.Errorf("Edge.ttrpc: %w", err)
	}
	echo, err := c.second.Echo(ctx)
	if err := exchanges(echo, err, req); err != nil {
		return fmt.Errorf("second_edge.Echo: %w", err)
	} else if err := receives(echo, nil, (*edgev1.Shared).GetText, "foo"); err != nil {
		return fmt.Errorf("second_edge.Echo: %w", err)
	}
	return nil
}

// receives returns an error unless a stream, which was opened with err, brings one message with this text and ends
// well.
func receives[M any](stream interface{ Recv() (M, error) }, err error, text func(M) string, want string) error {
	if err != nil {
		return err
	}
	if m, err := stream.Recv(); err != nil || text(m) != want {
		return fmt.Errorf("received %v, %w", m, err)
	}
	if m, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("received %v, %w, want the end", m, err)
	}
	return nil
}

// exchanges sends the only message.
func exchanges[M any](stream interface {
	Send(M) error
	CloseSend() error
}, err error, m M,
) error {
	if err != nil {
		return err
	}
	return errors.Join(stream.Send(m), stream.CloseSend())
}

type edge struct{}

func (edge) Call(_ context.Context, req *edgev1.Edges_Nested) (*edgev1.Edges_Nested, error) {
	return req, nil
}

func (edge) GetContext(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error) {
	return wrapperspb.String("context"), nil
}

func (edge) NewStream(_ context.Context, _ *emptypb.Empty, stream edgev1.Edge_NewStreamServer) error {
	return stream.Send(wrapperspb.String("foo"))
}

func (edge) Conn(_ context.Context, stream edgev1.Edge_ConnServer) (*emptypb.Empty, error) {
	if m, err := stream.Recv(); err != nil || m.GetValue() != 42 {
		return nil, fmt.Errorf("received %v, %w", m, err)
	}
	if m, err := stream.Recv(); err != io.EOF {
		return nil, fmt.Errorf("received %v, %w, want the end", m, err)
	}
	return new(emptypb.Empty), nil
}

func (edge) Ttrpc(_ context.Context, stream edgev1.Edge_TtrpcServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	return stream.Send(wrapperspb.String(m.GetText()))
}

// shared implements what has messages of type Shared only.
type shared struct{}

func (shared) Get(_ context.Context, req *edgev1.Shared) (*edgev1.Shared, error) { return req, nil }

func (shared) Watch(_ context.Context, req *edgev1.Shared, stream edgev1.Aging_WatchServer) error {
	return stream.Send(req)
}

func (shared) Echo(_ context.Context, stream edgev1.SecondEdge_EchoServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	return stream.Send(m)
}

type edgeService struct{}

func (edgeService) Call(_ context.Context, req *edgev1.Shared) (*edgev1.Shared, error) {
	return req, nil
}

func (edgeService) NewStream(_ context.Context, req *edgev1.Shared, stream edgev1.EdgeService_NewStreamServer) error {
	return stream.Send(req)
}
