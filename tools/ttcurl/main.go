// Ttcurl calls any method of any ttrpc server and shows what a server offers, as grpcurl does for gRPC.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/fullstorydev/grpcurl"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

func main() { cli.Main("ttcurl", run) }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	interceptor.ContainerdLog(slog.New(slog.DiscardHandler)) // what ttrpc logs, its calls return as well
	if len(args) > 0 && args[0] == completeCommand {
		return complete(ctx, args[1:], stdout)
	}
	o, err := parse(args, stdout, stderr)
	switch {
	case err != nil:
		return err
	case o.version:
		_, err := fmt.Fprintln(stdout, "ttcurl", version())
		return err
	case o.verb == verbCompletion:
		return completionScript(stdout, o.symbol)
	}

	signalled := ctx
	if o.maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, seconds(o.maxTime))
		defer cancel()
	}
	if err := do(ctx, o, stdin, stdout, stderr); err != nil {
		if _, ok := status.FromError(err); !ok && signalled.Err() != nil {
			err = status.Error(codes.Canceled, "interrupted")
		} else if !ok && ctx.Err() != nil {
			err = status.Error(codes.DeadlineExceeded, err.Error())
		}
		return explain(o, err)
	}
	return nil
}

func do(ctx context.Context, o *options, stdin io.Reader, stdout, stderr io.Writer) error {
	out := &output{name: o.out, Writer: stdout}
	defer out.close()
	server := newServer(o)
	ctx = metadata.NewOutgoingContext(ctx, grpcurl.MetadataFromHeaders(o.headers))
	started := time.Now()
	schema, err := o.schema(ctx, server)
	if err != nil {
		return err
	}
	defer schema.close()
	if o.ui {
		return page(ctx, o, server, schema, stdout, stderr)
	}
	switch o.verb {
	case verbList:
		err = list(o, schema, out)
	case verbDescribe:
		err = describe(o, schema, out)
	default:
		c := &call{options: o, server: server, schema: schema, schemaTook: time.Since(started)}
		err = c.run(ctx, stdin, out, stderr)
	}
	if err != nil {
		return err
	}
	return out.close()
}

// version is that of the module if it was installed by one, and else the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return info.Main.Version
}
