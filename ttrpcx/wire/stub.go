package wire

import (
	"time"

	"github.com/containerd/ttrpc"
)

// StreamMethod is a placeholder.
func StreamMethod(method string, _ []*ttrpc.KeyValue, _ time.Duration) string { return method }
