package interceptor_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/ttrpc-starter/ttrpcx/interceptor"
)

func TestRecover(t *testing.T) {
	for name, value := range map[string]any{
		"string": "secret", "error": errors.New("secret"), "nil": nil, "unprintable": unprintable{},
	} {
		t.Run(name, func(t *testing.T) {
			var lines logBuffer
			chain := interceptor.Recover(lines.logger())
			client, _ := serve(t, chain, all(func(context.Context) error { panic(value) }))
			for _, kind := range kinds {
				err := kind.call(t.Context(), client)
				if got := status.Convert(err); got.Code() != codes.Internal ||
					got.Message() != "internal error, see the server's log" || len(got.Details()) != 0 {
					t.Errorf("%s: the client got %v", kind.name, err)
				}
				line := lines.one(t)
				if line["level"] != "ERROR" || line["msg"] != "handler panicked" ||
					line["method"] != "/test.v1.Test/"+kind.name {
					t.Errorf("%s: logged %v", kind.name, line)
				}
				if s, _ := line["panic"].(string); value != nil && !strings.Contains(s, "secret") {
					t.Errorf("%s: panic is %q", kind.name, s)
				}
				if s, _ := line["stack"].(string); !strings.Contains(s, "recover_test.go") {
					t.Errorf("%s: the stack does not show the handler: %s", kind.name, s)
				}
				alive(t, client)
			}
		})
	}
}

// unprintable panics when it is printed.
type unprintable struct{}

func (unprintable) String() string { panic("secret") }

func TestRecoverPassesAnswers(t *testing.T) {
	var lines logBuffer
	var result error
	client, _ := serve(t, interceptor.Recover(lines.logger()), all(func(context.Context) error { return result }))
	for _, kind := range kinds {
		result = nil
		if err := kind.call(t.Context(), client); err != nil {
			t.Errorf("%s: %v", kind.name, err)
		}
		result = status.Error(codes.NotFound, "none")
		if err := kind.call(t.Context(), client); codeOf(err) != "NotFound" {
			t.Errorf("%s: %v", kind.name, err)
		}
	}
	if lines := lines.take(t); lines != nil {
		t.Errorf("logged %v", lines)
	}
}

// Such a call gets no answer, but it must be logged, and must not affect other calls.
func TestRecoverGoexit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			var lines logBuffer
			exited := make(chan struct{})
			log := &signalWriter{&lines, exited}
			client, stop := serve(t, interceptor.Recover(log.logger()), all(func(context.Context) error {
				runtime.Goexit()
				return nil
			}))
			ended := make(chan error)
			go func() { ended <- kind.call(context.WithoutCancel(t.Context()), client) }()
			<-exited
			line := lines.one(t)
			if line["level"] != "ERROR" || line["msg"] != "handler ended its goroutine, so its call gets no answer" ||
				line["method"] != "/test.v1.Test/"+kind.name {
				t.Errorf("logged %v", line)
			}
			alive(t, client)
			stop()
			if err := <-ended; err == nil {
				t.Error("the call was answered")
			}
		})
	}
}
