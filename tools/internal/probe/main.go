// Probe is a ttrpc server that does what its callers ask it to, for tests of what is in between.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/ttrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/cli"
	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/ttrpc/probe/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("probe", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	options, err := cli.ParseServer(cli.NewFlagSet("probe", "Serves probe.v1.Probe."), args, stdout, stderr)
	if err != nil {
		return err
	}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		return err
	}
	probev1.HandleProbe(server, probe{options.Address, stderr})
	return server.ListenAndServe(ctx)
}

type probe struct {
	address string
	log     io.Writer
}

// request is what all requests have.
type request interface {
	GetAct() probev1.Act
	GetData() []byte
	GetSize() int32
}

// do returns the data to answer with.
func (p probe) do(ctx context.Context, r request) ([]byte, error) {
	switch r.GetAct() {
	case probev1.Act_ACT_FAIL:
		s, err := status.New(codes.FailedPrecondition, "as you wish").WithDetails(&errdetails.ErrorInfo{
			Reason: "WISH", Domain: "probe.example", Metadata: map[string]string{"data": string(r.GetData())},
		})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	case probev1.Act_ACT_HANG:
		fmt.Fprintf(p.log, "hang begins: %s\n", r.GetData())
		<-ctx.Done()
		fmt.Fprintf(p.log, "hang ends: %s\n", r.GetData())
		return nil, ctx.Err()
	case probev1.Act_ACT_DIE:
		os.Exit(3)
	case probev1.Act_ACT_METADATA:
		md, _ := ttrpc.GetMetadata(ctx)
		return json.Marshal(md)
	case probev1.Act_ACT_SIZE:
		return make([]byte, r.GetSize()), nil
	case probev1.Act_ACT_NODE:
		return []byte(p.address), nil
	}
	return r.GetData(), nil
}

// Unary is as probe.proto says, and so are the others.
func (p probe) Unary(ctx context.Context, r *probev1.UnaryRequest) (*probev1.UnaryResponse, error) {
	data, err := p.do(ctx, r)
	return &probev1.UnaryResponse{Data: data}, err
}

func (p probe) Split(ctx context.Context, r *probev1.SplitRequest, stream probev1.Probe_SplitServer) error {
	for range 3 {
		data, err := p.do(ctx, r)
		if err != nil {
			return err
		}
		if err := stream.Send(&probev1.SplitResponse{Data: data}); err != nil {
			return err
		}
	}
	return nil
}

func (p probe) Join(ctx context.Context, stream probev1.Probe_JoinServer) (*probev1.JoinResponse, error) {
	var all []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &probev1.JoinResponse{Data: all}, nil
		} else if err != nil {
			return nil, err
		}
		data, err := p.do(ctx, r)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
}

func (p probe) Echo(ctx context.Context, stream probev1.Probe_EchoServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		data, err := p.do(ctx, r)
		if err != nil {
			return err
		}
		if err := stream.Send(&probev1.EchoResponse{Data: data}); err != nil {
			return err
		}
	}
}
