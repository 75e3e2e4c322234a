package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// TestJSONFailures shows that each failure of a call with -json is one JSON object, that agrees with the exit code.
func TestJSONFailures(t *testing.T) {
	env := make(map[string]string)
	for _, v := range servers(t) {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	dying, path := stock(t, "-reflection")
	for name, test := range map[string]struct {
		args    string // with $NAME for the servers
		code    int
		message string
		before  int // messages; -1 for any number
		details int
	}{
		"not JSON":       {`$REFLECT test.v1.Test/Unary -d {`, notCalled, "ends too early", 0, 0},
		"unknown field":  {`$REFLECT test.v1.Test/Unary -d {"x":1}`, notCalled, `field "x"`, 0, 0},
		"second message": {`$REFLECT test.v1.Test/Echo -d {"message":"a"}{`, notCalled, "message 2", -1, 0},
		"two messages":   {`$REFLECT test.v1.Test/Unary -d {}{}`, notCalled, "one message", 0, 0},
		"no file":        {`$REFLECT test.v1.Test/Unary -d @missing`, notCalled, "missing", 0, 0},
		"no server":      {`$DEAD test.v1.Test/Unary`, notCalled, "connection refused", 0, 0},
		"no schema":      {`$STOCK test.v1.Test/Unary`, notCalled, "no reflection", 0, 0},
		"no such method": {`$REFLECT test.v1.Test/Unray`, notCalled, "did you mean Unary?", 0, 0},
		"no such file":   {`-proto missing.proto $STOCK a.B/C`, notCalled, "missing.proto", 0, 0},
		"HTTP":           {`$HTTP test.v1.Test/Unary`, notCalled, "HTTP/1", 0, 0},
		"broken schema":  {`$BROKEN test.v1.Test/Unary`, int(codes.Internal), "no schema today", 0, 0},
		"no answer":      {`-connect-timeout 2 $SILENT a.B/C`, notCalled, "does not answer", 0, 0},
		"deadline": {
			`-max-time 0.2 -protoset $SCHEMA $STOCK test.v1.Test/Unary -d {"foo":"block"}`,
			int(codes.DeadlineExceeded), "deadline exceeded", 0, 0,
		},
		"early deadline": {`-max-time 2 $SILENT a.B/C`, int(codes.DeadlineExceeded), "schema", 0, 0},
		"status": {
			`$REFLECT test.v1.Test/Split -d {"text":"a\u0020fail"}`, int(codes.FailedPrecondition), "as asked", 1, 1,
		},
		"format-error": {
			`-format-error $REFLECT test.v1.Test/Unary -d {"foo":"fail"}`,
			int(codes.FailedPrecondition), "as asked", 0, 1,
		},
		"unimplemented": {
			`-protoset $SCHEMA $OTHER test.v1.Test/Unary`, int(codes.Unimplemented), "test.v1.Test", 0, 0,
		},
		"too large": {`$TTRPCX test.v1.Test/Join -d @$BIG`, int(codes.ResourceExhausted), "maximum", 0, 0},
		"large answer": {
			`$REFLECT test.v1.Test/Unary -d {"foo":"large\u00205000000"}`, int(codes.Unavailable), "closed", 0, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(os.Expand(test.args, func(name string) string { return env[name] }))
			cmd := ttcurl(append([]string{"-json"}, args...)...)
			wantObject(t, cmd, cmd.Run, test.code, test.message, test.before, test.details)
		})
	}
	t.Run("server dies", func(t *testing.T) {
		cmd := ttcurl("-json", path, "test.v1.Test/Unary", "-d", `{"foo":"block"}`)
		wantObject(t, cmd, func() error {
			if err := cmd.Start(); err != nil {
				return err
			}
			dying.WaitFor("blocks")
			dying.Signal(os.Kill)
			return cmd.Wait()
		}, int(codes.Unavailable), "closed", 0, 0)
	})
	t.Run("usage", func(t *testing.T) { // prints no object, because nothing is known to be for a program
		cmd := ttcurl("-json", "-nonsense")
		if out, _ := cmd.Output(); len(out) > 0 {
			t.Errorf("printed %s", out)
		}
	})
}

func wantObject(
	t *testing.T, cmd *exec.Cmd, run func() error, code int, message string, before, details int,
) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	exit, ok := errors.AsType[*exec.ExitError](run())
	if !ok {
		t.Fatalf("it did not fail: %s", stdout.String())
	}
	var got struct {
		Method   *string
		Messages []json.RawMessage
		Status   *struct {
			Code    *int
			Name    string
			Message string
		}
		Details []json.RawMessage
		Timing  map[string]any
	}
	d := json.NewDecoder(&stdout)
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil || d.More() {
		t.Fatalf("no JSON object, or more than one: %v", err)
	}
	wantExit, name := 1, "NotCalled"
	if code != notCalled {
		wantExit, name = 64+code, codes.Code(code).String()
	}
	switch {
	case got.Method == nil, got.Status == nil, got.Status.Code == nil, got.Messages == nil, got.Details == nil,
		got.Timing["start"] == "":
		t.Errorf("something is missing: %+v", got)
	case exit.ExitCode() != wantExit, *got.Status.Code != code, got.Status.Name != name:
		t.Errorf("exit code %d, %+v, want %d and %s", exit.ExitCode(), *got.Status, wantExit, name)
	case !strings.Contains(got.Status.Message, message), strings.Contains(got.Status.Message, "rpc error"):
		t.Errorf("the message is %q, want %q in it", got.Status.Message, message)
	case before >= 0 && len(got.Messages) != before, len(got.Details) != details:
		t.Errorf("%d messages and %d details, want %d and %d", len(got.Messages), len(got.Details), before, details)
	}
	if stderr.Len() == 0 {
		t.Error("nothing for people on standard error")
	}
}
