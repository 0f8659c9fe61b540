package scale

import (
	"fmt"

	"github.com/prometheus/procfs"
)

// cpuTime is what weftd has used of the processors since its start, in s.
func (s *site) cpuTime() (float64, error) {
	p, err := procfs.NewProc(s.node.PID())
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of weftd: %w", err)
	}
	stat, err := p.Stat()
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of weftd: %w", err)
	}
	return stat.CPUTime(), nil
}

// memory is how much memory weftd has now, and had at most since its start, in MB of a
// million bytes.
func (s *site) memory() (resident, peak float64, err error) {
	p, err := procfs.NewProc(s.node.PID())
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of weftd: %w", err)
	}
	status, err := p.NewStatus()
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of weftd: %w", err)
	}
	return float64(status.VmRSS) / 1e6, float64(status.VmHWM) / 1e6, nil
}
