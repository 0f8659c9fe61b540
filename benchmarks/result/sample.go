package result

import (
	"fmt"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/system"
)

// Sample is one measurement.
type Sample struct {
	Profile string    `json:"profile"`
	System  string    `json:"system"`
	Cell    string    `json:"cell"`
	Repeat  int       `json:"repeat"` // from 0
	Started time.Time `json:"started"`

	// Values are absent if the measurement failed. Error then says why.
	Values measure.Values `json:"values,omitempty"`
	Error  string         `json:"error,omitempty"`

	// Calls are how long single calls took, in ms and in their order, by their kind.
	Calls map[string][]float64 `json:"calls,omitempty"`

	// CPU is what the whole machine spent, start and end of the programs included.
	CPU machine.CPU `json:"cpu"`

	// Counters are what the path's counters gained.
	Counters system.Counters `json:"counters,omitempty"`
}

// NewSample begins a measurement that has no values yet.
func NewSample(profile, system, cell string, repeat int) Sample {
	return Sample{
		Profile: profile, System: system, Cell: cell, Repeat: repeat, Started: time.Now(),
		Values: measure.Values{}, Calls: map[string][]float64{},
	}
}

// Fail notes an error, unless it is nil. A sample that failed has no values.
func (s *Sample) Fail(err error) {
	if err == nil {
		return
	}
	if s.Error != "" {
		err = fmt.Errorf("%s\n%w", s.Error, err)
	}
	s.Values, s.Error = nil, err.Error()
}

// Failed says whether Fail has noted an error.
func (s *Sample) Failed() bool { return s.Error != "" }

// Spend runs f, and adds what the whole machine spends meanwhile to the sample's CPU.
func (s *Sample) Spend(f func() error) error {
	watch, err := machine.StartCPU()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	spent, err := watch.Stop()
	s.CPU = s.CPU.Plus(spent)
	return err
}

// Call notes how long a call of some kind took.
func (s *Sample) Call(kind string, took time.Duration) {
	s.Calls[kind] = append(s.Calls[kind], float64(took)/float64(time.Millisecond))
}

// Percentile is that of the calls of a kind, in ms.
func (s *Sample) Percentile(kind string, p float64) float64 { return Percentile(s.Calls[kind], p) }
