package scale

import (
	"slices"
	"strconv"

	"weft/benchmarks/measure"
)

// Explain says what must be known to judge the figures.
const Explain = `one real weftd; the other nodes are registered in a real etcd or API server, and do nothing else
a change: from when the source acknowledges it until weftd has it in its FIB, the guard table and the routes; the kernel tells when
all share the processors; MB are millions of bytes; Kubernetes has the heartbeats of all kubelets`

// The cells.
const (
	Start   = "start"
	Leave   = "leave"
	Join    = "join"
	Address = "address"
	Mass    = "mass"
	Idle    = "idle"
)

// The metrics that goals and plots are about.
const (
	P50      = "p50"
	P99      = "p99"
	Cold     = "cold"
	Restart  = "restart"
	CPU      = "cpu"
	Resident = "resident"
	Peak     = "peak"
	Prefixes = "prefixes"
)

// Profile stands in results where others have the offloads of the wire.
func Profile(nodes int) string { return strconv.Itoa(nodes) }

// Changes are the cells that are single changes.
func Changes() []string { return []string{Join, Leave, Address} }

// Cells are what is measured, with their metrics. A cell's name is in its samples.
func Cells() []measure.Cell {
	seconds := func(key, title string) measure.Metric {
		return measure.Metric{Key: key, Title: title, Unit: "s", Digits: 2, Better: measure.Lower}
	}
	megabytes := func(key, title string) measure.Metric {
		return measure.Metric{Key: key, Title: title, Unit: "MB", Digits: 0, Better: measure.Lower}
	}
	atMost := megabytes(Peak, "memory of weftd at most")
	single := []measure.Metric{seconds(P50, "p50"), seconds(P99, "p99")}
	return []measure.Cell{
		{Name: Start, Title: "start, until all are active", Metrics: []measure.Metric{
			seconds(Restart, "restart"), seconds(Cold, "no snapshot"), seconds(CPU, "CPU of weftd"), atMost}},
		{Name: Join, Title: "a node registers", Metrics: single},
		{Name: Leave, Title: "a node is removed", Metrics: single},
		{Name: Address, Title: "a node's address changes", Metrics: single},
		{Name: Mass, Title: "all register anew", Metrics: []measure.Metric{
			seconds("written", "until all are written"), seconds("after", "from then on"), seconds(CPU, "CPU of weftd"), atMost}},
		{Name: Idle, Title: "while nothing changes", Metrics: []measure.Metric{
			{Key: CPU, Title: "CPU of weftd", Unit: "% of a core", Digits: 2, Better: measure.Lower},
			megabytes(Resident, "memory of weftd"), megabytes(Peak, "at most since its start"),
			{Key: Prefixes, Title: "prefixes in the FIB", Digits: 0, Better: measure.Lower}}},
	}
}

// Goals are what weftd is to reach beside 5,000 nodes.
func Goals() []measure.Goal {
	var goals []measure.Goal
	add := func(title, cell, metric string, most float64) {
		goals = append(goals, measure.Goal{Title: title, Cell: cell, Metric: metric, Max: most})
	}
	for _, c := range Cells() {
		if slices.Contains(Changes(), c.Name) {
			add(c.Title+", p99, s", c.Name, P99, 1)
		}
	}
	add("restart, s", Start, Restart, 3)
	add("start without a snapshot, s", Start, Cold, 3)
	add("memory while nothing changes, MB", Idle, Resident, 150)
	add("memory at most since the start, MB", Idle, Peak, 150)
	add("CPU while nothing changes, % of a core", Idle, CPU, 1)
	return goals
}
