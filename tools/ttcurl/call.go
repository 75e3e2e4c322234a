package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcurl's interfaces are made of it
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// call is one call of a method. grpcurl calls its methods as the call goes on.
type call struct {
	*options
	server     *server
	schema     *schema
	schemaTook time.Duration

	cancel   context.CancelFunc
	requests *requests
	printer  printer
	stderr   io.Writer
	started  time.Time
	first    time.Duration // until the first message
	messages int
	enough   bool  // -max-messages are there
	printErr error // why a message could not be printed
	ended    bool
	status   *status.Status // nil is OK
}

var _ grpcurl.InvocationEventHandler = (*call)(nil)

func (c *call) run(ctx context.Context, stdin io.Reader, out *output, stderr io.Writer) error {
	method, err := c.schema.method(c.symbol)
	if err != nil {
		return err
	}
	name := method.GetService().GetFullyQualifiedName() + "/" + method.GetName()
	if !c.schema.fromServer {
		warning, err := c.server.checkKind(ctx, method)
		if err != nil {
			return err
		}
		if warning != "" {
			fmt.Fprintln(stderr, "ttcurl: warning:", warning)
		}
	}
	if err := c.schema.write(c.options, method.GetService().GetFullyQualifiedName()); err != nil {
		return err
	}

	ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	in, err := c.input(ctx, stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	formats := grpcurl.FormatOptions{
		EmitJSONDefaultFields: c.emitDefaults,
		AllowUnknownFields:    c.allowUnknownFields,
		IncludeTextSeparator:  true,
	}
	c.requests = newRequests(in, grpcurl.Format(c.format), c.schema, formats)
	_, format, err := grpcurl.RequestParserAndFormatter(grpcurl.Format(c.format), c.schema, nil, formats)
	if err != nil {
		return err
	}
	c.printer = &plainPrinter{out, format}
	if c.json {
		c.printer = &jsonPrinter{w: out, format: format}
	}
	c.stderr = stderr
	if !c.verbose && !c.veryVerbose {
		c.stderr = io.Discard
	}

	c.started = time.Now()
	if err := c.printer.begin(name); err != nil {
		return err
	}
	err = grpcurl.InvokeRPC(ctx, c.schema, c.server, name, c.headers, c, c.requests.next)
	took := time.Since(c.started)
	result, err := c.result(err)
	if result == nil {
		return err
	}
	if err := c.printer.end(result, timing{c.started, c.server.connectTook(), c.first, took}); err != nil {
		return err
	}
	fmt.Fprintf(c.stderr, "\nSent %d messages, received %d\n", c.requests.count, c.messages)
	if c.veryVerbose {
		fmt.Fprintf(c.stderr, "Took %v: schema %v, connection %v, first message after %v, call %v\n",
			took+c.schemaTook, c.schemaTook, c.server.connectTook(), c.first, took)
	}
	if result.Code() == codes.OK {
		return nil
	}
	return c.failure(name, result, format, stderr)
}

// result returns the status that the call ended with, or nil and why it cannot be said to have one.
func (c *call) result(err error) (*status.Status, error) {
	failure := c.requests.failure()
	switch {
	case c.printErr != nil:
		return nil, c.printErr
	case c.enough, c.ended && c.status.Code() == codes.OK:
		return status.New(codes.OK, ""), nil
	case c.ended && (c.status.Code() != codes.Canceled || failure == nil):
		// Canceled with a failure is a bad request: grpcurl cancels its call.
		return c.status, nil
	case failure != nil:
		err = failure
	case c.server.dialError() != nil: // grpcurl does not report it
		return nil, c.server.dialError()
	case err == nil:
		return nil, errors.New("the call ended without a status")
	}
	if st, ok := status.FromError(interceptor.StatusError(err)); ok {
		return st, nil
	}
	return nil, err
}

// failure returns the error for a status, as grpcurl words it.
func (c *call) failure(name string, st *status.Status, format grpcurl.Formatter, stderr io.Writer) error {
	err := &callError{st, name, new(strings.Builder)}
	if !c.formatError {
		grpcurl.PrintStatus(err.text, st, format)
		return err
	}
	text, formatErr := format(protoadapt.MessageV1Of(st.Proto()))
	if formatErr != nil {
		return err
	}
	fmt.Fprintln(stderr, cli.PrintableLines(text))
	return &cli.ReportedError{Err: err}
}

// callError is a call that failed with a status.
type callError struct {
	status *status.Status
	method string
	text   *strings.Builder
}

func (e *callError) Error() string {
	return e.method + " failed:\n" + strings.TrimSuffix(strings.TrimPrefix(e.text.String(), "ERROR:\n"), "\n")
}

func (e *callError) GRPCStatus() *status.Status { return e.status }

// input opens what -d names. Standard input may never end, so that ctx ends it, too.
func (o *options) input(ctx context.Context, stdin io.Reader) (io.ReadCloser, error) {
	name, ok := strings.CutPrefix(o.data, "@")
	switch {
	case !ok:
		return io.NopCloser(strings.NewReader(o.data)), nil
	case name != "":
		return os.Open(name)
	}
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, stdin)
		_ = w.CloseWithError(err) // nil is EOF
	}()
	context.AfterFunc(ctx, func() { _ = r.CloseWithError(ctx.Err()) })
	return r, nil
}

// OnResolveMethod is called by grpcurl, as are the other methods that begin with On.
func (c *call) OnResolveMethod(m *desc.MethodDescriptor) {
	if text, err := grpcurl.GetDescriptorText(m, nil); err == nil {
		fmt.Fprintf(c.stderr, "Resolved method descriptor:\n%s\n", text)
	}
}

// OnSendHeaders tells of the metadata.
func (c *call) OnSendHeaders(md metadata.MD) {
	fmt.Fprintf(c.stderr, "\nRequest metadata to send:\n%s\n", grpcurl.MetadataToString(md))
}

// OnReceiveHeaders has nothing to tell: ttrpc has no headers.
func (c *call) OnReceiveHeaders(metadata.MD) {}

// OnReceiveResponse prints a message at once.
func (c *call) OnReceiveResponse(m protoadapt.MessageV1) {
	if c.printErr != nil || c.enough {
		return
	}
	if c.messages == 0 {
		c.first = time.Since(c.started)
	}
	c.messages++
	if c.veryVerbose {
		fmt.Fprintf(c.stderr, "\nMessage %d after %v: %d bytes\n",
			c.messages, time.Since(c.started), proto.Size(protoadapt.MessageV2Of(m)))
	}
	c.printErr = c.printer.message(m)
	c.enough = c.messages == c.maxMessages
	if c.printErr != nil || c.enough {
		c.cancel()
	}
}

// OnReceiveTrailers is told the call's status.
func (c *call) OnReceiveTrailers(st *status.Status, _ metadata.MD) {
	c.ended, c.status = true, st
	c.cancel() // a goroutine that waits for more input must not wait longer
}
