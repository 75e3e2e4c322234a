package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	probev1 "example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1"
	"example.com/ttrpc-starter/tools/internal/probe/gen/grpc/probe/v1/probev1connect"
)

// load is what a call sends, and asks for.
type load struct {
	act  probev1.Act
	data []byte
	size int32
}

// caller makes a call of one kind with one protocol. Streams of requests have two.
type caller func(ctx context.Context, l load) (answers [][]byte, err error)

var kinds = []string{"Unary", "Split", "Join", "Echo"}

// protocols are the ways to call, each with a caller for the kinds that it has.
var protocols = map[string]func(g *running) map[string]caller{
	"grpc":       func(g *running) map[string]caller { return grpcCallers(probev1.NewProbeClient(g.grpc())) },
	"grpc-alone": func(g *running) map[string]caller { return grpcCallers(probev1.NewProbeClient(g.alone().grpc())) },
	"connect": func(g *running) map[string]caller {
		return connectCallers(probev1connect.NewProbeClient(g.http(true), g.url("")))
	},
	"connect-json": func(g *running) map[string]caller {
		return connectCallers(probev1connect.NewProbeClient(g.http(true), g.url(""), connect.WithProtoJSON()))
	},
	"connect-gzip": func(g *running) map[string]caller {
		return connectCallers(probev1connect.NewProbeClient(g.http(true), g.url(""), connect.WithSendGzip()))
	},
	"connect-grpc": func(g *running) map[string]caller {
		return connectCallers(probev1connect.NewProbeClient(g.http(true), g.url(""), connect.WithGRPC()))
	},
	"connect-grpc-gzip": func(g *running) map[string]caller {
		return connectCallers(
			probev1connect.NewProbeClient(g.http(true), g.url(""), connect.WithGRPC(), connect.WithSendGzip()))
	},
	"grpc-web": func(g *running) map[string]caller {
		return connectCallers(probev1connect.NewProbeClient(g.http(true), g.url(""), connect.WithGRPCWeb()))
	},
	"grpc-web-http1": func(g *running) map[string]caller {
		callers := connectCallers(probev1connect.NewProbeClient(g.http(false), g.url(""), connect.WithGRPCWeb()))
		delete(callers, "Echo") // needs both directions at once, which HTTP/1.1 does not have
		return callers
	},
	"json-http1": func(g *running) map[string]caller {
		return map[string]caller{"Unary": jsonCaller(g.http(false), g.url("/probe.v1.Probe/Unary"))}
	},
}

func grpcCallers(client probev1.ProbeClient) map[string]caller {
	return map[string]caller{
		"Unary": func(ctx context.Context, l load) ([][]byte, error) {
			r, err := client.Unary(ctx, &probev1.UnaryRequest{Act: l.act, Data: l.data, Size: l.size})
			return [][]byte{r.GetData()}, err
		},
		"Split": func(ctx context.Context, l load) ([][]byte, error) {
			s, err := client.Split(ctx, &probev1.SplitRequest{Act: l.act, Data: l.data, Size: l.size})
			if err != nil {
				return nil, err
			}
			return collect(s.Recv)
		},
		"Join": func(ctx context.Context, l load) ([][]byte, error) {
			s, err := client.Join(ctx)
			for range 2 {
				if err == nil {
					err = s.Send(&probev1.JoinRequest{Act: l.act, Data: l.data, Size: l.size})
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			r, err := s.CloseAndRecv()
			return [][]byte{r.GetData()}, err
		},
		"Echo": func(ctx context.Context, l load) ([][]byte, error) {
			s, err := client.Echo(ctx)
			if err != nil {
				return nil, err
			}
			send := func() error { return s.Send(&probev1.EchoRequest{Act: l.act, Data: l.data, Size: l.size}) }
			return converse(send, s.Recv, s.CloseSend)
		},
	}
}

func connectCallers(client probev1connect.ProbeClient) map[string]caller {
	return map[string]caller{
		"Unary": func(ctx context.Context, l load) ([][]byte, error) {
			req := &probev1.UnaryRequest{Act: l.act, Data: l.data, Size: l.size}
			r, err := client.Unary(ctx, connect.NewRequest(req))
			if err != nil {
				return nil, err
			}
			return [][]byte{r.Msg.GetData()}, nil
		},
		"Split": func(ctx context.Context, l load) ([][]byte, error) {
			req := &probev1.SplitRequest{Act: l.act, Data: l.data, Size: l.size}
			s, err := client.Split(ctx, connect.NewRequest(req))
			if err != nil {
				return nil, err
			}
			defer s.Close()
			return collect(func() (*probev1.SplitResponse, error) {
				if s.Receive() {
					return s.Msg(), nil
				} else if s.Err() != nil {
					return nil, s.Err()
				}
				return nil, io.EOF
			})
		},
		"Join": func(ctx context.Context, l load) ([][]byte, error) {
			s := client.Join(ctx)
			for range 2 {
				err := s.Send(&probev1.JoinRequest{Act: l.act, Data: l.data, Size: l.size})
				if err != nil && !errors.Is(err, io.EOF) {
					return nil, err
				}
			}
			r, err := s.CloseAndReceive()
			if err != nil {
				return nil, err
			}
			return [][]byte{r.Msg.GetData()}, nil
		},
		"Echo": func(ctx context.Context, l load) ([][]byte, error) {
			s := client.Echo(ctx)
			defer s.CloseResponse()
			send := func() error { return s.Send(&probev1.EchoRequest{Act: l.act, Data: l.data, Size: l.size}) }
			return converse(send, s.Receive, s.CloseRequest)
		},
	}
}

type answer interface{ GetData() []byte }

// collect receives until the end.
func collect[A answer](receive func() (A, error)) (answers [][]byte, err error) {
	for {
		a, err := receive()
		if errors.Is(err, io.EOF) {
			return answers, nil
		} else if err != nil {
			return answers, err
		}
		answers = append(answers, a.GetData())
	}
}

// converse sends twice and receives after each, and then the end.
func converse[A answer](send func() error, receive func() (A, error), end func() error) (answers [][]byte, err error) {
	for range 2 {
		if err := send(); err != nil && !errors.Is(err, io.EOF) {
			return answers, err
		}
		a, err := receive()
		if err != nil {
			return answers, err
		}
		answers = append(answers, a.GetData())
	}
	if err := end(); err != nil {
		return answers, err
	}
	rest, err := collect(receive)
	return append(answers, rest...), err
}

// jsonCaller posts JSON, as somebody does who knows of no protocol.
func jsonCaller(client *http.Client, url string) caller {
	return func(ctx context.Context, l load) ([][]byte, error) {
		body, err := json.Marshal(map[string]any{"act": l.act, "data": l.data, "size": l.size})
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
		if deadline, ok := ctx.Deadline(); ok {
			req.Header.Set("Connect-Timeout-Ms", fmt.Sprint(time.Until(deadline).Milliseconds()))
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		var result struct {
			Data          []byte
			Code, Message string
			Details       []struct{ Type, Value string }
		}
		if err := json.Unmarshal(text, &result); err != nil {
			return nil, fmt.Errorf("HTTP %s: %q: %w", resp.Status, text, err)
		}
		if resp.StatusCode != http.StatusOK {
			var code connect.Code
			if err := code.UnmarshalText([]byte(result.Code)); err != nil {
				return nil, fmt.Errorf("HTTP %s: %q: %w", resp.Status, text, err)
			}
			failed := connect.NewError(code, errors.New(result.Message))
			for _, d := range result.Details {
				value, err := base64.RawStdEncoding.DecodeString(d.Value)
				if err != nil {
					return nil, err
				}
				kind := "type.googleapis.com/" + d.Type
				detail, err := connect.NewErrorDetail(&anypb.Any{TypeUrl: kind, Value: value})
				if err != nil {
					return nil, err
				}
				failed.AddDetail(detail)
			}
			return nil, failed
		}
		return [][]byte{result.Data}, nil
	}
}

// outcome returns code, message and the reason in the details of an error, whatever the protocol.
func outcome(err error) (code codes.Code, message, reason string) {
	if failed := new(connect.Error); errors.As(err, &failed) {
		for _, d := range failed.Details() {
			if v, err := d.Value(); err == nil {
				if info, ok := v.(*errdetails.ErrorInfo); ok {
					reason = info.GetReason() + info.GetMetadata()["data"]
				}
			}
		}
		return codes.Code(failed.Code()), failed.Message(), reason
	}
	switch s := status.Convert(err); {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, err.Error(), ""
	case errors.Is(err, context.Canceled):
		return codes.Canceled, err.Error(), ""
	default:
		for _, d := range s.Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				reason = info.GetReason() + info.GetMetadata()["data"]
			}
		}
		return s.Code(), s.Message(), reason
	}
}

// want is how often a kind answers.
var want = map[string]int{"Unary": 1, "Split": 3, "Join": 1, "Echo": 2}

// TestConformance makes calls of every kind with every protocol that has it, and looks at what comes of them.
func TestConformance(t *testing.T) {
	_, backend := probe(t)
	g := gate(t, backend)
	for protocol, callers := range protocols {
		for _, kind := range kinds {
			call := callers(g)[kind]
			if call == nil {
				continue
			}
			t.Run(protocol+"/"+kind, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				for _, size := range []int{0, 1, 1000, 100_000, 1 << 20} {
					data := bytes.Repeat([]byte("x"), size)
					answers, err := call(ctx, load{data: data})
					if err != nil {
						t.Fatalf("%d bytes: %v", size, err)
					}
					if kind == "Join" {
						data = bytes.Repeat(data, 2)
					}
					for _, a := range answers {
						if !bytes.Equal(a, data) {
							t.Fatalf("%d bytes: %d came back, want %d", size, len(a), len(data))
						}
					}
					if len(answers) != want[kind] {
						t.Fatalf("%d bytes: %d answers, want %d", size, len(answers), want[kind])
					}
				}
				wantOutcome(t, call, load{act: probev1.Act_ACT_FAIL, data: []byte("!")},
					codes.FailedPrecondition, "as you wish", "WISH!")
				wantOutcome(t, call, load{data: make([]byte, 5<<20)}, codes.ResourceExhausted, "", "")
				wantOutcome(t, call, load{act: probev1.Act_ACT_SIZE, size: 5 << 20}, codes.ResourceExhausted, "", "")
			})
		}
	}
}

func wantOutcome(t *testing.T, call caller, l load, code codes.Code, message, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := call(ctx, l)
	gotCode, gotMessage, gotReason := outcome(err)
	if gotCode != code || !strings.Contains(gotMessage, message) || gotReason != reason {
		t.Errorf("%v with %d bytes: %v %q with details %q (%v), want %v %q with %q",
			l.act, len(l.data), gotCode, gotMessage, gotReason, err, code, message, reason)
	}
}

// TestEnds ends calls from both sides: a deadline, a caller that leaves, a server that dies.
func TestEnds(t *testing.T) {
	for protocol, callers := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			server, backend := probe(t)
			g := gate(t, backend)
			var timed sync.WaitGroup
			for kind, call := range callers(g) {
				timed.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					_, err := call(ctx, load{act: probev1.Act_ACT_HANG, data: []byte(kind + " in time")})
					if code, _, _ := outcome(err); code != codes.DeadlineExceeded {
						t.Errorf("%s in time: %v, want DeadlineExceeded", kind, err)
					}
				})
			}
			timed.Wait()
			for _, kind := range kinds {
				call := callers(g)[kind]
				if call == nil {
					continue
				}
				server.WaitFor("hang ends: " + kind + " in time") // the server knows the deadline, too

				name := kind + " left"
				ctx, leave := context.WithCancel(t.Context())
				left := make(chan error, 1)
				go func() {
					_, err := call(ctx, load{act: probev1.Act_ACT_HANG, data: []byte(name)})
					left <- err
				}()
				server.WaitFor("hang begins: " + name)
				leave()
				if code, _, _ := outcome(<-left); code != codes.Canceled {
					t.Errorf("%s: %v, want Canceled", name, code)
				}
				if kind != "Unary" { // which ttrpc cannot cancel
					server.WaitFor("hang ends: " + name)
				}
			}
			for _, kind := range kinds {
				call := callers(g)[kind]
				if call == nil {
					continue
				}
				dying, address := probe(t)
				die := load{act: probev1.Act_ACT_DIE}
				wantOutcome(t, callers(gate(t, address))[kind], die, codes.Unavailable, "", "")
				<-dying.Ended()
			}
		})
	}
}
