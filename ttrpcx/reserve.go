package ttrpcx

import (
	"context"

	"example.com/ttrpc-starter/ttrpcx/wire"
)

// Reserve counts n bytes that a handler keeps until it returns, such as messages of a stream that it collects, as part
// of ServerOptions.MaxMemory. ctx is the handler's context. If there is no room, Reserve counts nothing and returns an
// error with code ResourceExhausted, which the handler should return. With a server that is not of NewServer, it does
// nothing.
func Reserve(ctx context.Context, n int) error {
	if call := wire.CallFromContext(ctx); call != nil {
		return call.Reserve(n)
	}
	return nil
}
