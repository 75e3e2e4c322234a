//go:build !linux

package runner

import psutil "github.com/shirou/gopsutil/v4/process"

func proportional(*psutil.Process) int64 { return -1 }
