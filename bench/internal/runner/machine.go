package runner

import (
	"os"
	"runtime"
	"strings"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	psutil "github.com/shirou/gopsutil/v4/process"

	"example.com/ttrpc-starter/bench/result"
)

// machine returns what is known of this machine; what is not stays empty.
func machine() result.Machine {
	m := result.Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		Go: runtime.Version(), Governor: "unknown", LoadStart: loadAverage(), LoadEnd: -1,
	}
	m.Kernel, _ = host.KernelVersion()
	if infos, err := cpu.Info(); err == nil && len(infos) > 0 {
		m.CPU = infos[0].ModelName
	}
	if v, err := mem.VirtualMemory(); err == nil {
		m.Memory = int64(v.Total)
	}
	if governor, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"); err == nil {
		m.Governor = strings.TrimSpace(string(governor))
	}
	return m
}

func loadAverage() float64 {
	avg, err := load.Avg()
	if err != nil {
		return -1
	}
	return avg.Load1
}

// memory returns a process's resident and proportional set size, -1 for what the system does not tell.
func (p *process) memory() (rss, pss int64) {
	rss = -1
	system, err := psutil.NewProcess(int32(p.cmd.Process.Pid))
	if err != nil {
		return -1, -1
	}
	if info, err := system.MemoryInfo(); err == nil {
		rss = int64(info.RSS)
	}
	return rss, proportional(system)
}
