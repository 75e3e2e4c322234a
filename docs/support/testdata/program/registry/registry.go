// Package registry has the services whose methods the program echo calls, and what implements them. Each method answers
// with what it gets.
package registry

import (
	"errors"
	"io"

	"github.com/containerd/ttrpc"
)

// Repeats is how many messages a stream carries in one direction.
const Repeats = 3

// Service is one service of a feature, by means of its generated code.
type Service struct {
	Feature  string
	Register func(*ttrpc.Server)
	Client   func(*ttrpc.Client) any
}

// Services are filled by the packages of generated code.
var Services []Service

// Split implements a method whose server sends a stream.
func Split[T any](req *T, send func(*T) error) error {
	for range Repeats {
		if err := send(req); err != nil {
			return err
		}
	}
	return nil
}

// Join implements a method whose client sends a stream. The answer is the last message.
func Join[T any](recv func() (*T, error)) (last *T, err error) {
	for {
		req, err := recv()
		if errors.Is(err, io.EOF) {
			return last, nil
		} else if err != nil {
			return nil, err
		}
		last = req
	}
}

// Echo implements a method with a stream in both directions.
func Echo[T any](recv func() (*T, error), send func(*T) error) error {
	for {
		req, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := send(req); err != nil {
			return err
		}
	}
}
