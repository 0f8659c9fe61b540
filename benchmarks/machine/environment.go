package machine

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os/exec"
	"runtime"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Environment is what figures depend on besides the systems themselves.
type Environment struct {
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryGB float64           `json:"memoryGB"`
	Load1    float64           `json:"load1"`    // load average of the last minute, before the run
	CPUShare float64           `json:"cpuShare"` // part of the machine that was busy before the run
	Versions map[string]string `json:"versions"`
	Prices
}

// Describe looks at the machine. It does not know about CPUShare, Versions and Prices.
func Describe() (Environment, error) {
	e := Environment{Cores: runtime.NumCPU()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return e, fmt.Errorf("read the kernel's version: %w", err)
	}
	e.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return e, fmt.Errorf("read the size of the memory: %w", err)
	}
	e.MemoryGB = float64(info.Totalram) * float64(info.Unit) / 1e9
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return e, fmt.Errorf("read the CPU's model: %w", err)
	}
	load, err := proc.LoadAvg()
	if err != nil {
		return e, fmt.Errorf("read the load: %w", err)
	}
	e.Load1, e.CPU = load.Load1, runtime.GOARCH
	// Only some architectures report a model.
	if cpus, err := proc.CPUInfo(); err == nil && len(cpus) > 0 && cpus[0].ModelName != "" {
		e.CPU = cpus[0].ModelName
	}
	return e, nil
}

// FirstLine runs a program and returns the first line of what it prints that is not
// empty, as programs tell their version: some of them on standard error.
func FirstLine(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return string(line), nil
}

// ModuleVersion returns of which version of its module a Go program was built.
func ModuleVersion(program string) (string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("read the version of %s: %w", program, err)
	}
	return info.Main.Version, nil
}

const (
	quietLoad  = 0.3 // per core
	quietShare = 0.05
)

// Disturbances says why figures taken now would not be worth much.
func (e Environment) Disturbances() []string {
	var why []string
	if e.Load1 > quietLoad*float64(e.Cores) {
		why = append(why, fmt.Sprintf("the load average is %.2f on %d cores", e.Load1, e.Cores))
	}
	if e.CPUShare > quietShare {
		why = append(why, fmt.Sprintf("others use %.0f %% of the processors", 100*e.CPUShare))
	}
	return why
}
