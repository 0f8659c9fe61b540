package scale

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// cpuTime is what a process has used of the processors since its start, in units of 10 ms
// (proc_pid_stat(5), utime and stime).
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU times: %w", err)
	}
	// The program's name, which may contain anything, is in parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fmt.Errorf("read CPU times: /proc/%d/stat is %q", pid, stat)
	}
	var ticks time.Duration
	for _, field := range []string{fields[utime], fields[stime]} {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read CPU times: %w", err)
		}
		ticks += time.Duration(n)
	}
	const perSecond = 100 // fixed for user space
	return ticks * time.Second / perSecond, nil
}

// memory is how much memory a process has now, and had at most since its start, in MB of a
// million bytes (proc_pid_status(5), VmRSS and VmHWM).
func memory(pid int) (resident, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	found := make(map[string]float64)
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read memory: %w", err)
		}
		found[key] = kib * 1024 / 1e6
	}
	return found["VmRSS"], found["VmHWM"], nil
}
