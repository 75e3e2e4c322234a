// Package testservice has the service that all tests call: its contract in proto/, its generated code in gen/, and its
// implementation.
package testservice

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
)

// Service answers as test.proto says. A test can change that with the functions. The zero value only answers.
type Service struct {
	// Begin runs at the start of each handler, with the method's name. If it returns an error, the call ends with that.
	// Default: none.
	Begin func(ctx context.Context, method string) error

	// Text gets the text of each message that arrives, in Split each word of it, and returns the text to answer with.
	// An error ends the call. ErrEnd ends the call with success, after the answers so far. Default: the text itself.
	Text func(ctx context.Context, text string) (string, error)

	// Keep gets the number of bytes that Join keeps in addition, for each word. An error ends the call. Default: none.
	Keep func(ctx context.Context, n int) error
}

var _ testv1.TestService = Service{}

// maxWords is the number of words that Split sends. Each is a message, and a request has room for two million.
const maxWords = 256 << 10

// maxJoined bounds what Join collects in bytes. ttrpc has no larger messages.
const maxJoined = 4 << 20

// ErrEnd is an error for Service.Text to return: it ends the call with success.
var ErrEnd = errors.New("end the call")

func (s Service) begin(ctx context.Context, method string) error {
	if s.Begin == nil {
		return nil
	}
	return s.Begin(ctx, method)
}

func (s Service) text(ctx context.Context, text string) (string, error) {
	if s.Text == nil {
		return text, nil
	}
	return s.Text(ctx, text)
}

// Unary answers one message with one message.
func (s Service) Unary(ctx context.Context, req *testv1.UnaryRequest) (*testv1.UnaryResponse, error) {
	if err := s.begin(ctx, "Unary"); err != nil {
		return nil, err
	}
	foo, err := s.text(ctx, req.GetFoo())
	if err != nil && !errors.Is(err, ErrEnd) {
		return nil, err
	}
	return &testv1.UnaryResponse{Foo: foo, Bar: req.GetBar()}, nil
}

// Split answers one message with a stream.
func (s Service) Split(ctx context.Context, req *testv1.SplitRequest, stream testv1.Test_SplitServer) error {
	if err := s.begin(ctx, "Split"); err != nil {
		return err
	}
	sent := 0
	for word := range strings.FieldsSeq(req.GetText()) {
		if sent++; sent > maxWords {
			return status.Errorf(codes.InvalidArgument, "text has more than %d words", maxWords)
		}
		word, err := s.text(ctx, word)
		if err != nil {
			return ended(err)
		}
		if err := stream.Send(&testv1.SplitResponse{Word: word}); err != nil {
			return err
		}
	}
	return nil
}

// Join answers a stream with one message.
func (s Service) Join(ctx context.Context, stream testv1.Test_JoinServer) (*testv1.JoinResponse, error) {
	if err := s.begin(ctx, "Join"); err != nil {
		return nil, err
	}
	var text strings.Builder
	for n := 0; ; n++ {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &testv1.JoinResponse{Text: text.String()}, nil
		} else if err != nil {
			return nil, err
		}
		word, err := s.text(ctx, req.GetWord())
		if err != nil && !errors.Is(err, ErrEnd) {
			return nil, err
		}
		if s.Keep != nil {
			if err := s.Keep(ctx, 2*(len(word)+1)); err != nil { // a Builder may have twice the room that it needs
				return nil, err
			}
		}
		if n > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(word)
		if text.Len() > maxJoined {
			return nil, status.Errorf(codes.ResourceExhausted, "text has more than %d bytes", maxJoined)
		}
		if err != nil {
			return &testv1.JoinResponse{Text: text.String()}, nil
		}
	}
}

// Echo answers each message of a stream with one message.
func (s Service) Echo(ctx context.Context, stream testv1.Test_EchoServer) error {
	if err := s.begin(ctx, "Echo"); err != nil {
		return err
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		message, err := s.text(ctx, req.GetMessage())
		if err != nil {
			return ended(err)
		}
		if err := stream.Send(&testv1.EchoResponse{Message: message}); err != nil {
			return err
		}
	}
}

func ended(err error) error {
	if errors.Is(err, ErrEnd) {
		return nil
	}
	return err
}
