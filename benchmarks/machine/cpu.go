// Package machine says what the benchmarks run on, and how busy it is.
package machine

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

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

// readCPU returns the times since the machine was booted. Guest times are in user and nice
// already.
func readCPU() (CPU, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return CPU{}, fmt.Errorf("read CPU times: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return CPU{}, fmt.Errorf("read CPU times: %w", err)
	}
	c := stat.CPUTotal
	return CPU{Busy: c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ, Steal: c.Steal, Idle: c.Idle + c.Iowait}, nil
}

// Plus adds two up.
func (c CPU) Plus(d CPU) CPU {
	return CPU{Busy: c.Busy + d.Busy, Steal: c.Steal + d.Steal, Idle: c.Idle + d.Idle}
}

// Since returns what was spent since before.
func (c CPU) Since(before CPU) CPU {
	return c.Plus(CPU{Busy: -before.Busy, Steal: -before.Steal, Idle: -before.Idle})
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
	now, err := readCPU()
	return Stopwatch{started: now}, err
}

// Stop returns what was spent since the start.
func (s Stopwatch) Stop() (CPU, error) {
	now, err := readCPU()
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
