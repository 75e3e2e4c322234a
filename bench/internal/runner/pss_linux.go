package runner

import psutil "github.com/shirou/gopsutil/v4/process"

// proportional is the resident set, in which a shared page counts for each process in part: smaps_rollup in
// proc_pid_smaps(5).
func proportional(p *psutil.Process) int64 {
	maps, err := p.MemoryMaps(true)
	if err != nil || len(*maps) != 1 {
		return -1
	}
	return int64((*maps)[0].Pss) << 10
}
