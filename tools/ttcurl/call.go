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
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

// call is one call of a method.
type call struct {
	*options
	server     *server
	schema     *schema
	schemaTook time.Duration
	types      *types
	format     func(proto.Message) ([]byte, error)
	requests   *requests
	object     *object // nil unless -json
	out        *output
	stderr     io.Writer // of -v

	result
	messages int
}

// run makes the call. Its error has a status if the call was made and has ended with one.
func (c *call) run(ctx context.Context, stdin io.Reader, stderr io.Writer) error {
	method, err := c.schema.method(c.symbol)
	if err != nil {
		return err
	}
	c.method = method.GetService().GetFullyQualifiedName() + "/" + method.GetName()
	warning, err := c.server.checkKind(ctx, c.schema, method)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Fprintln(stderr, "ttcurl: warning:", warning)
	}
	if err := c.schema.write(c.options, method.GetService().GetFullyQualifiedName()); err != nil {
		return err
	}
	if err := c.prepare(method, stderr); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := c.input(ctx, stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	c.requests = newRequests(in, c.options, c.types)

	c.start = time.Now()
	err = c.invoke(ctx, cancel, method.UnwrapMethod())
	c.took, c.connect = time.Since(c.start), c.server.connectTook()
	err = c.reason(err)
	var ended interface{ GRPCStatus() *status.Status }
	if err != nil && !errors.As(err, &ended) {
		return err
	}
	fmt.Fprintf(c.stderr, "\nSent %d messages, received %d\n", c.requests.count.Load(), c.messages)
	if c.veryVerbose {
		fmt.Fprintf(c.stderr, "Took %v: schema %v, connection %v, first message after %v, call %v\n",
			c.took+c.schemaTook, c.schemaTook, c.connect, c.first, c.took)
	}
	if err == nil {
		return nil
	}
	return c.failure(ended.GRPCStatus(), stderr)
}

// prepare tells what is about to be done, and gets ready to print what comes of it.
func (c *call) prepare(method *desc.MethodDescriptor, stderr io.Writer) (err error) {
	c.types = newTypes(c.schema)
	if c.format, err = c.formatter(c.types); err != nil {
		return err
	}
	if c.object != nil {
		c.object.format = c.format
	}
	c.stderr = stderr
	if !c.verbose && !c.veryVerbose {
		c.stderr = io.Discard
	}
	if text, err := grpcurl.GetDescriptorText(method, nil); err == nil {
		fmt.Fprintf(c.stderr, "Resolved method descriptor:\n%s\n", text)
	}
	return nil
}

// invoke makes the call and prints what comes. Its error is nil if -max-messages have come.
func (c *call) invoke(ctx context.Context, cancel context.CancelFunc, method protoreflect.MethodDescriptor) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	fmt.Fprintf(c.stderr, "\nRequest metadata to send:\n%s\n", grpcurl.MetadataToString(md))
	conn, name := c.server.forCall(), "/"+c.method
	var request proto.Message
	if !method.IsStreamingClient() {
		var err error
		if request, err = c.onlyRequest(method); err != nil {
			return err
		}
	}
	if request != nil && !method.IsStreamingServer() {
		response := new(emptypb.Empty)
		if err := conn.Invoke(ctx, name, request, response); err != nil {
			return err
		}
		m, err := c.decode(response, method.Output())
		if err != nil {
			return err
		}
		return c.print(m)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{
		ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer(),
	}, name)
	if err != nil {
		return err
	}
	if request != nil {
		if err := stream.SendMsg(request); err != nil && err != io.EOF { // after io.EOF, RecvMsg tells why
			return err
		}
		_ = stream.CloseSend()
	} else {
		go c.send(stream, cancel, method.Input())
	}
	return c.receive(ctx, stream, method.Output())
}

// onlyRequest reads the request of a method that takes one; an empty one if there is no input.
func (c *call) onlyRequest(method protoreflect.MethodDescriptor) (proto.Message, error) {
	request := dynamicpb.NewMessage(method.Input())
	if err := c.requests.next(request); err == io.EOF {
		return request, nil
	} else if err != nil {
		return nil, err
	}
	if err := c.requests.next(dynamicpb.NewMessage(method.Input())); err == nil {
		return nil, fmt.Errorf("method %s takes one message, and the request data has more than 1 message", c.method)
	} else if err != io.EOF {
		return nil, err
	}
	return request, nil
}

// send sends all requests. What is wrong with one ends the call.
func (c *call) send(stream grpc.ClientStream, cancel context.CancelFunc, kind protoreflect.MessageDescriptor) {
	for {
		m := dynamicpb.NewMessage(kind)
		switch err := c.requests.next(m); {
		case err == io.EOF:
			_ = stream.CloseSend()
			return
		case err != nil:
			cancel()
			return
		}
		if stream.SendMsg(m) != nil {
			return // RecvMsg tells why
		}
	}
}

// receive prints what the stream brings. Output is flushed when nothing more is here to be printed.
func (c *call) receive(ctx context.Context, stream grpc.ClientStream, kind protoreflect.MessageDescriptor) error {
	const ahead = 64
	messages, end := make(chan proto.Message, ahead), make(chan error, 1)
	go func() {
		defer close(messages)
		for {
			response := new(emptypb.Empty)
			err := stream.RecvMsg(response)
			var m proto.Message
			if err == nil {
				m, err = c.decode(response, kind)
			}
			if err != nil {
				end <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				end <- ctx.Err()
				return
			}
		}
	}()
	for {
		var m proto.Message
		var ok bool
		select {
		case m, ok = <-messages:
		default:
			if err := c.out.flush(); err != nil {
				return err
			}
			m, ok = <-messages
		}
		if !ok {
			break
		}
		if err := c.print(m); err != nil {
			return err
		}
		if c.messages == c.maxMessages {
			return nil
		}
	}
	if err := <-end; err != io.EOF {
		return err
	}
	return nil
}

func (c *call) decode(response *emptypb.Empty, kind protoreflect.MessageDescriptor) (proto.Message, error) {
	m := dynamicpb.NewMessage(kind)
	err := proto.UnmarshalOptions{Resolver: c.types}.Unmarshal(response.ProtoReflect().GetUnknown(), m)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "decode the answer: %v", err)
	}
	return m, nil
}

func (c *call) print(m proto.Message) error {
	if c.messages == 0 {
		c.first = time.Since(c.start)
	}
	c.messages++
	if c.veryVerbose {
		fmt.Fprintf(c.stderr, "\nMessage %d after %v: %d bytes\n", c.messages, time.Since(c.start), proto.Size(m))
	}
	if c.object != nil {
		return c.object.message(c.method, m)
	}
	text, err := c.format(m)
	if err != nil {
		return fmt.Errorf("print an answer: %w", err)
	}
	_, err = c.out.Write(append(text, '\n'))
	return err
}

// reason returns why the call has ended, with a status if it has one.
func (c *call) reason(err error) error {
	switch failure := c.requests.failure(); {
	case err == nil:
		return nil
	case failure != nil:
		return failure
	case c.server.dialError() != nil:
		return c.server.dialError()
	}
	return interceptor.StatusError(err)
}

// failure returns the error for a status, as grpcurl words it.
func (c *call) failure(st *status.Status, stderr io.Writer) error {
	err := &callError{st, c.method, new(strings.Builder)}
	format := func(m protoadapt.MessageV1) (string, error) {
		text, err := c.format(protoadapt.MessageV2Of(m))
		return string(text), err
	}
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

// fromTTRPC reports whether the status is Unimplemented in the words of ttrpc, which does not know the method. Handlers
// can return this code, too.
func (e *callError) fromTTRPC() bool {
	service, method, _ := strings.Cut(e.method, "/")
	message := e.status.Message()
	return e.status.Code() == codes.Unimplemented && (message == "service "+service || message == "method "+method)
}

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
