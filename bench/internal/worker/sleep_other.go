//go:build !linux

package worker

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
