// Package result is what a run of the benchmarks leaves behind: every sample as it
// was taken, with what it was taken on, in one JSON file.
package result

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"weft/benchmarks/machine"
	"weft/benchmarks/system"
)

// Run is one run. Durations are in nanoseconds.
type Run struct {
	Started     time.Time           `json:"started"`
	Took        time.Duration       `json:"took"`
	Environment machine.Environment `json:"environment"`
	InnerMTU    int                 `json:"innerMTU"` // bytes
	Repeat      int                 `json:"repeat"`
	Time        time.Duration       `json:"time"` // of a measurement
	Pods        int                 `json:"pods,omitempty"`

	// Nodes are the numbers of nodes that weftd was measured beside, one for each of the
	// profiles; CIDRs is how many each of them has in a file, and Changes how many single
	// changes of each kind there were.
	Nodes   []int `json:"nodes,omitempty"`
	CIDRs   int   `json:"cidrs,omitempty"`
	Changes int   `json:"changes,omitempty"`

	// Baseline is the system that the others are compared with in tables.
	Baseline string `json:"baseline"`

	// Pairs are the systems that are compared where only ratios are shown. Not all of them
	// need to be in the run.
	Pairs []system.Pair `json:"pairs,omitempty"`

	// Profiles, Systems and Cells are what was chosen, in the order of the tables.
	Profiles []Profile `json:"profiles"`
	Systems  []System  `json:"systems"`
	Cells    []string  `json:"cells"`

	Samples []Sample `json:"samples"`
}

// Profile is an offload profile as the kernel took it.
type Profile struct {
	Name string `json:"name"`

	// Features are those of the wire, by the names of `ethtool -k`.
	Features system.Features `json:"features"`

	// IdleShare is the part of the machine that all systems together used while nothing
	// was sent.
	IdleShare float64 `json:"idleShare"`
}

// System is one that was measured.
type System struct {
	Name      string `json:"name"`
	Encrypted bool   `json:"encrypted,omitempty"`
}

// Save writes the run to a file, whose folder it makes.
func (r *Run) Save(path string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("save the results: %w", err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("save the results: %w", err)
	}
	return nil
}

// Load reads a file that Save wrote.
func Load(path string) (*Run, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load results: %w", err)
	}
	r := new(Run)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("load results from %s: %w", path, err)
	}
	return r, nil
}
