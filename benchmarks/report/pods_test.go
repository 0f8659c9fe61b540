package report

import (
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/pods"
	"weft/benchmarks/result"
)

// examplePods has two repeats of all systems. weft-cni misses one goal, and was not
// asked for its status.
func examplePods() *result.Run {
	r := &result.Run{
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), InnerMTU: 1420, Repeat: 2, Pods: 110,
		Environment: machine.Environment{
			Kernel: "6.18.0 x86_64", CPU: "Example CPU", Cores: 2, MemoryGB: 24,
			Versions: map[string]string{"bridge": "CNI bridge plugin v1.1.1"},
		},
		Baseline: pods.Baseline,
		Profiles: []result.Profile{{Name: pods.Profile}},
		Cells:    []string{pods.OneByOne, pods.AtOnce, pods.Status},
	}
	factors := map[string]float64{pods.Bridge: 1, pods.PTP: 0.8, pods.Weft: 0.5}
	for _, name := range pods.Systems() {
		r.Systems = append(r.Systems, result.System{Name: name})
		for repeat := range 2 {
			ms := factors[name] * float64(10+repeat)
			for cell, values := range map[string]measure.Values{
				pods.OneByOne: {pods.AddP50: ms, "add_p99": 2 * ms, "add_p10": ms, "del_p50": 3 * ms, "del_p99": 4 * ms},
				pods.AtOnce:   {pods.AddWall: 100 * ms * ms / 10, "del_wall": 50 * ms, "add_cpu": ms, pods.AddP50: 50 * ms, "add_p99": 90 * ms},
			} {
				r.Samples = append(r.Samples, result.Sample{Profile: pods.Profile, System: name, Cell: cell, Repeat: repeat, Values: values})
			}
		}
	}
	for _, s := range r.Samples {
		if s.System == pods.Weft && s.Cell == pods.OneByOne {
			s.Values[pods.AddP50] *= 1.5
		}
	}
	return r
}
