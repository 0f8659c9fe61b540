// Package measure says what is measured on a path, and measures it. A cell is one
// kind of traffic; it yields one value for each of its metrics.
package measure

import (
	"context"
	"fmt"
	"time"

	"weft/benchmarks/load"
	"weft/benchmarks/system"
)

// Better says which way a metric is better.
type Better string

// The ways.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Metric is one figure of a cell.
type Metric struct {
	// Key names it among its cell's.
	Key    string
	Title  string
	Unit   string
	Digits int // after the decimal point
	Better Better
}

// The metrics.
var (
	received    = Metric{"gbps", "received", "Gb/s", 2, Higher}
	retransmits = Metric{"retransmits", "retransmits", "", 0, Lower}
	cpuPerGbit  = Metric{"cpu_per_gbit", "CPU of the machine", "s/Gbit", 3, Lower}
	arrived     = Metric{"kpps", "received", "thousand/s", 1, Higher}
	lossless    = Metric{"kpps", "highest rate", "thousand/s", 1, Higher}
	cpuPerMega  = Metric{"cpu_per_mpkt", "CPU of the machine", "s/million", 2, Lower}
	p50         = Metric{"p50", "p50", "µs", 1, Lower}
	p99         = Metric{"p99", "p99", "µs", 1, Lower}
	p999        = Metric{"p999", "p99.9", "µs", 1, Lower}
)

// Values are a cell's figures by the keys of its metrics.
type Values map[string]float64

// Cell is one kind of traffic.
type Cell struct {
	// Name is unique.
	Name    string
	Title   string
	Metrics []Metric

	// Programs are needed besides podload.
	Programs []string

	// takes is how long a measurement lasts, without start and end of its programs.
	takes func(time.Duration) time.Duration
	run   func(ctx context.Context, p pods, during time.Duration) (Values, error)
}

// Names are the names of cells.
func Names(cells []Cell) (names []string) {
	for _, c := range cells {
		names = append(names, c.Name)
	}
	return names
}

// Goal is the most that a metric may be.
type Goal struct {
	Title        string
	Cell, Metric string

	// To is the system that the metric is compared with; empty if Max is in the metric's
	// own unit.
	To  string
	Max float64
}

// overhead is about what starting and ending programs adds to a cell.
const overhead = 300 * time.Millisecond

// Takes estimates how long the cell is busy with a measurement that lasts during.
func (c Cell) Takes(during time.Duration) time.Duration { return c.takes(during) + overhead }

// All is every cell. The first of a cell's metrics is its headline.
func All() []Cell {
	tcp := []Metric{received, retransmits, cpuPerGbit}
	blast := []Metric{arrived, cpuPerMega}
	oneWay := []Metric{p50, p99, p999}
	iperf := []string{"iperf3"}
	return []Cell{
		{"tcp1", "TCP, 1 stream", tcp, iperf, wholeSeconds, stream("--parallel", "1")},
		{"tcp8", "TCP, 8 streams", tcp, iperf, wholeSeconds, stream("--parallel", "8")},
		{"bidir", "TCP, 1 stream each way", tcp, iperf, wholeSeconds, stream("--bidir")},
		{"udp64", "UDP, 64-byte packets, sent at full speed", blast, nil, same, flood("small")},
		{"udp64-lossless", "UDP, 64-byte packets, less than 0.1 % lost", []Metric{lossless}, nil, searching, highestRate("small")},
		{"imix", "UDP, IMIX, sent at full speed", blast, nil, same, flood("imix")},
		{"imix-lossless", "UDP, IMIX, less than 0.1 % lost", []Metric{lossless}, nil, searching, highestRate("imix")},
		{"rtt", "UDP round trip, half of it", oneWay, []string{"sockperf"}, trips, roundTrips},
		{"rtt-tcp", "UDP round trip beside a TCP stream, half of it", oneWay, []string{"iperf3", "sockperf"}, besideStream, loadedRoundTrips},
	}
}

// Explain says what the figures of UDP are, for those who compare them with others.
func Explain() string {
	return fmt.Sprintf("packets are whole IPv4 packets (64 bytes: 36 of UDP payload); IMIX is 7:4:1 of 64, 576 and 1400 bytes, %.0f on average; round trips are halved, as sockperf reports them, with 64 bytes each way",
		load.IMIX.Mean())
}

// Measure measures the cell once on a path.
func (c Cell) Measure(ctx context.Context, path *system.Path, podload string, during time.Duration) (Values, error) {
	values, err := c.run(ctx, pods{from: path.Pods[0], to: path.Pods[1], podload: podload}, during)
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", c.Name, err)
	}
	return values, nil
}

func same(during time.Duration) time.Duration { return during }

// pods is where a measurement takes place.
type pods struct {
	from, to system.Pod

	// podload is the path of the program.
	podload string
}
