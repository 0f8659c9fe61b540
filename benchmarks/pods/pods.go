// Package pods measures how fast pods are attached to a node: weft-cni beside the
// plugins that most clusters begin with.
//
//	┌ pod 1 ┐ ┌ pod 2 ┐     ┌ pod N ┐   a namespace for each attachment, made before
//	│ eth0  │ │ eth0  │  …  │ eth0  │   the clock starts
//	└──┬────┘ └──┬────┘     └──┬────┘
//	┌──┴─────────┴─────────────┴────┐
//	│ node                          │   a namespace for each system
//	└───────────────────────────────┘
//
// Every call starts the plugin's process as a container runtime does, and is counted
// until the process has ended. All systems give each pod an IPv4 and an IPv6 address,
// default routes for both and the same MTU, and keep their state on the same disk. What
// one of them does besides is left to it: weft-cni has its leases written to the disk
// before it returns (fsync), host-local has not.
//
// Duplicate address detection is off in all namespaces: ptp would wait for it nearly two
// seconds with every pod, the others don't.
//
// No weftd runs on weft's node. weft-cni needs the file that weftd writes and its device,
// and both are there.
package pods

import (
	"slices"

	"weft/benchmarks/measure"
)

// Explain says what must be known to judge the figures.
const Explain = `each call is a process of its own, from its start to its end; at once: counted from when all were started
all systems: IPv4 and IPv6 with default routes, the same MTU, state on the same disk, duplicate address detection off
weft-cni has its leases on the disk before it returns (fsync); host-local leaves that to the kernel
bridge sleeps 50 ms where the kernel does not report its new port as up at once, which changes from run to run: compare p10 too`

// The cells.
const (
	OneByOne = "one-by-one"
	AtOnce   = "at-once"
	Status   = "status"
)

// Profile stands in results where others have the offloads of the wire.
const Profile = "pods"

// The metrics that goals are about.
const (
	AddP50  = "add_p50"
	AddWall = "add_wall"
	P99     = "p99"
)

// Cells are what is measured, with their metrics. A cell's name is in its samples.
func Cells() []measure.Cell {
	ms := func(key, title string) measure.Metric {
		return measure.Metric{Key: key, Title: title, Unit: "ms", Digits: 2, Better: measure.Lower}
	}
	calls := []measure.Metric{ms(AddP50, "ADD p50"), ms("add_p99", "ADD p99"), ms("del_p50", "DEL p50"), ms("del_p99", "DEL p99")}
	all := []measure.Metric{ms(AddWall, "all ADDs"), ms("del_wall", "all DELs"), ms("add_cpu", "CPU per ADD")}
	return []measure.Cell{
		{Name: OneByOne, Title: "one pod after another", Metrics: slices.Concat(calls, []measure.Metric{ms("add_p10", "ADD p10")})},
		{Name: AtOnce, Title: "all pods at once", Metrics: slices.Concat(all, calls)},
		{Name: Status, Title: "STATUS while all pods are attached", Metrics: []measure.Metric{ms("p50", "p50"), ms(P99, "p99")}},
	}
}

// Goals are what weft-cni is to reach.
func Goals() []measure.Goal {
	var goals []measure.Goal
	for _, other := range []string{Bridge, PTP} {
		goals = append(goals,
			measure.Goal{Title: "ADD p50, one by one, to that of " + other, Cell: OneByOne, Metric: AddP50, To: other, Max: 0.8},
			measure.Goal{Title: "all ADDs at once, to those of " + other, Cell: AtOnce, Metric: AddWall, To: other, Max: 0.7})
	}
	return append(goals, measure.Goal{Title: "STATUS p99, ms", Cell: Status, Metric: P99, Max: 10})
}
