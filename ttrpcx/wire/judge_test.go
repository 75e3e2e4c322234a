package wire

import (
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestJudge gives a judge some calls, and what ttrpc has answered, and asks it about one more frame.
func TestJudge(t *testing.T) {
	send := func(j *judge, h Header) (verdict, error) {
		v, err := j.judge(h)
		if err == nil {
			j.accept(h, v, 0)
		}
		return v, err
	}
	open := func(id uint32, k kind) func(*judge) {
		return func(j *judge) {
			_, _ = send(j, Header{StreamID: id, Type: TypeRequest})
			j.opened(id, k, nil, 0)
		}
	}
	sent := func(h Header) func(*judge) { return func(j *judge) { _, _ = send(j, h) } }
	answered := func(h Header, s *status.Status) func(*judge) {
		payload := marshal(t, &ttrpc.Response{Status: s.Proto()})
		h.Length = uint32(len(payload))
		return func(j *judge) { j.answered(&frame{Header: h, tail: AppendFrame(nil, h, payload)}) }
	}
	request := func(id uint32) Header { return Header{StreamID: id, Type: TypeRequest} }
	data := func(id uint32, flags Flags, n uint32) Header {
		return Header{StreamID: id, Type: TypeData, Flags: flags, Length: n}
	}
	response := func(id uint32) Header { return Header{StreamID: id, Type: TypeResponse} }
	full := status.New(codes.InvalidArgument, "data handling error: ttrpc: stream buffer full")
	all := func(steps ...func(*judge)) []func(*judge) { return steps }

	for name, test := range map[string]struct {
		before []func(*judge)
		h      Header
		want   verdict
		reason string
		calls  int
	}{
		"request":  {nil, request(1), pass, "", 1},
		"even id":  {nil, request(2), 0, "even", 0},
		"id zero":  {nil, request(0), probe, "", 0},
		"id again": {all(open(3, unary)), request(3), 0, "not higher", 1},
		"too long": {
			nil,
			Header{StreamID: 1, Type: TypeRequest, Length: MaxPayload + 1},
			tooLong, "", 0,
		},
		"longest": {
			nil,
			Header{StreamID: 1, Type: TypeRequest, Length: MaxPayload},
			pass, "", 1,
		},
		"response":     {nil, response(1), 0, "type 2", 0},
		"at the limit": {all(open(1, unary), open(3, serverStream)), request(5), park, "", 2},
		"behind a parked one": {
			all(open(1, unary), open(3, unary), sent(request(5)), answered(response(1), nil)),
			request(7), park, "", 1,
		},
		"after a parked one has gone on": {
			all(open(1, unary), open(3, unary), sent(request(5)), answered(response(1), nil),
				answered(response(3), nil), func(j *judge) { j.unpark(5, 0) }),
			request(7), pass, "", 2,
		},
		"after a parked one was refused": {
			all(open(1, unary), open(3, unary), sent(request(5)), func(j *judge) { j.forget(5) },
				answered(response(1), nil)),
			request(7), pass, "", 2,
		},
		"data of a parked one": {
			all(open(1, unary), open(3, unary), open(5, clientStream)), data(5, 0, 5), park, "", 2,
		},
		"data of a parked one after its end": {
			all(open(1, unary), open(3, unary), open(5, clientStream), sent(data(5, end, 0))),
			data(5, 0, 5), 0, "after its end", 2,
		},
		"data to a parked unary one": {
			all(open(1, unary), open(3, unary), open(5, unary)), data(5, 0, 5), 0, "takes none", 2,
		},
		"limit for too long": {
			all(open(1, unary), open(3, unary), func(j *judge) { j.overdue = true }),
			request(5), busy, "", 2,
		},
		"limit and draining": {
			all(open(1, unary), open(3, unary), func(j *judge) { j.draining = true }),
			request(5), ending, "", 2,
		},
		"draining": {all(func(j *judge) { j.draining = true }), request(1), ending, "", 0},
		"data while draining": {
			all(open(1, clientStream), func(j *judge) { j.draining = true }),
			data(1, 0, 5), pass, "", 1,
		},
		"data": {all(open(1, clientStream)), data(1, 0, 5), pass, "", 1},
		"end":  {all(open(1, clientStream)), data(1, end, 0), pass, "", 1},
		"data after end": {
			all(open(1, clientStream), sent(data(1, end, 0))),
			data(1, 0, 5), 0, "after its end", 1,
		},
		"data too long": {all(open(1, clientStream)), data(1, 0, MaxPayload+1), tooLong, "", 1},
		"data of an invalid request": {
			all(open(1, clientStream), func(j *judge) { j.opened(1, clientStream, errMetadata, 0) }),
			data(1, 0, 5), drop, "", 1,
		},
		"end with payload":  {all(open(1, clientStream)), data(1, end, 5), 0, "has a payload", 1},
		"data to unary":     {all(open(1, unary)), data(1, 0, 5), 0, "takes none", 1},
		"data to download":  {all(open(1, serverStream)), data(1, 0, 5), 0, "takes none", 1},
		"data never opened": {all(open(1, clientStream)), data(3, 0, 5), 0, "never opened", 1},
		"late data": {
			all(open(1, clientStream), answered(response(1), nil)),
			data(1, 0, 5), drop, "", 0,
		},
		"late data of a stream": {
			all(open(1, clientStream), answered(data(1, end, 0), nil)), data(1, 0, 5), drop, "", 0,
		},
		"data after a message": {
			all(open(1, clientStream), answered(data(1, 0, 3), nil)),
			data(1, 0, 5), pass, "", 1,
		},
		"answered in the place of a handler": {
			all(open(1, clientStream), answered(response(1), full)),
			data(1, 0, 5), drop, "", 1,
		},
		"and it counts as open": {
			all(open(1, clientStream), answered(response(1), full), open(3, unary)),
			request(5), park, "", 2,
		},
		"until its handler ends": {
			all(open(1, clientStream), answered(response(1), full), answered(data(1, end, 0), nil)),
			request(3), pass, "", 1,
		},
		"the same answer ends a unary call": {
			all(open(1, unary), answered(response(1), full)),
			data(1, 0, 5), drop, "", 0,
		},
		"another answer ends a client stream": {
			all(open(1, clientStream), answered(response(1), refused)),
			data(1, 0, 5), drop, "", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := judge{maxCalls: 2}
			for _, step := range test.before {
				step(&j)
			}
			got, err := send(&j, test.h)
			switch {
			case test.reason != "" && (err == nil || !strings.Contains(err.Error(), test.reason)):
				t.Errorf("got %v, want an error with %q", err, test.reason)
			case test.reason == "" && (err != nil || got != test.want):
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
			if j.running() != test.calls {
				t.Errorf("%d calls are running, want %d", j.running(), test.calls)
			}
		})
	}
}

var refused = status.New(codes.InvalidArgument, "no such thing")
