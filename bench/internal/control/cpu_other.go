//go:build !unix

package control

import "time"

func cpu() time.Duration { return -1 }
