// Ttcurl calls any method of any ttrpc server and shows what a server offers, as grpcurl does for gRPC.
package main

import (
	"context"
	"errors"
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

	out, err := o.output(stdout)
	if err != nil {
		return err
	}
	signalled := ctx
	if o.maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, seconds(o.maxTime))
		defer cancel()
	}
	c := &call{options: o, server: newServer(o), out: out, result: result{method: o.symbol, start: time.Now()}}
	if o.json {
		c.object = &object{out: out}
	}
	if err = c.do(ctx, stdin, stdout, stderr); err != nil {
		if _, ok := status.FromError(err); !ok && signalled.Err() != nil {
			err = status.Error(codes.Canceled, "interrupted")
		} else if !ok && ctx.Err() != nil {
			err = status.Error(codes.DeadlineExceeded, err.Error())
		}
		err = worded{err}
	}
	if c.object != nil {
		err = errors.Join(err, c.object.end(c.result, err))
	}
	return errors.Join(explain(o, err), out.close())
}

// do does what the command line says.
func (c *call) do(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	ctx = metadata.NewOutgoingContext(ctx, grpcurl.MetadataFromHeaders(c.headers))
	if c.schema, err = c.options.schema(ctx, c.server); err != nil {
		return err
	}
	c.schemaTook = time.Since(c.start)
	switch {
	case c.ui:
		return page(ctx, c.options, c.server, c.schema, stdout, stderr)
	case c.verb == verbList:
		return list(c.options, c.schema, c.out)
	case c.verb == verbDescribe:
		return describe(c.options, c.schema, c.out)
	}
	return c.run(ctx, stdin, stderr)
}

// version is that of the module if it was installed by one, and else the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return info.Main.Version
}
