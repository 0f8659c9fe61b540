// Package machine says what the benchmarks run on, and how busy it is.
package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of /proc/stat, fixed for user space (proc_stat(5)).
const userHZ = 100

// CPU is what all processors together did, in seconds.
type CPU struct {
	// Busy is user, nice, system, interrupt and soft interrupt time: everything that is
	// not idle, so that no work of the kernel's is missed, whoever it was done for.
	Busy float64 `json:"busy"`

	// Steal is time in which the hypervisor ran something else. It is neither.
	Steal float64 `json:"steal"`

	// Idle includes waiting for disks.
	Idle float64 `json:"idle"`
}

// ReadCPU returns the times since the machine was booted.
func ReadCPU() (CPU, error) {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return CPU{}, fmt.Errorf("read CPU times: %w", err)
	}
	return parseCPU(string(content))
}

// parseCPU reads the first line of /proc/stat: cpu user nice system idle iowait irq
// softirq steal guest guest_nice. Guest times are in user and nice already.
func parseCPU(stat string) (CPU, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return CPU{}, fmt.Errorf("read CPU times: /proc/stat begins with %q", line)
	}
	var seconds [8]float64
	for i := range seconds {
		ticks, err := strconv.ParseUint(fields[1+i], 10, 64)
		if err != nil {
			return CPU{}, fmt.Errorf("read CPU times: %w", err)
		}
		seconds[i] = float64(ticks) / userHZ
	}
	return CPU{
		Busy:  seconds[0] + seconds[1] + seconds[2] + seconds[5] + seconds[6],
		Idle:  seconds[3] + seconds[4],
		Steal: seconds[7],
	}, nil
}

// Since returns what was spent since before.
func (c CPU) Since(before CPU) CPU {
	return CPU{Busy: c.Busy - before.Busy, Steal: c.Steal - before.Steal, Idle: c.Idle - before.Idle}
}

// Share returns which part of its time the machine was busy, or stolen from.
func (c CPU) Share() float64 {
	if all := c.Busy + c.Steal + c.Idle; all > 0 {
		return (c.Busy + c.Steal) / all
	}
	return 0
}

// Stopwatch measures CPU time from StartCPU on.
type Stopwatch struct{ started CPU }

// StartCPU starts a Stopwatch.
func StartCPU() (Stopwatch, error) {
	now, err := ReadCPU()
	return Stopwatch{started: now}, err
}

// Stop returns what was spent since the start.
func (s Stopwatch) Stop() (CPU, error) {
	now, err := ReadCPU()
	return now.Since(s.started), err
}

// Watch returns what is spent in the next while.
func Watch(while time.Duration) (CPU, error) {
	watch, err := StartCPU()
	if err != nil {
		return CPU{}, err
	}
	time.Sleep(while)
	return watch.Stop()
}
