package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Family is one metric, with a series for each combination of its labels' values.
type Family struct {
	Name   string
	Type   prometheus.ValueType
	Labels []string

	// Help says what it counts. docs/METRICS.md has the same text.
	Help string

	// collect passes the value of each series to add.
	collect func(s *Sample, add add)
}

// add takes the value of one series, with the values of its labels in their order.
type add func(value float64, labels ...string)

// Group is the metrics of one part of weft.
type Group struct {
	Title    string
	Families []Family
}

// Groups returns all of weft's metrics, in the order of their documentation.
func Groups() []Group { return groups }

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// collector shows the samples of a daemon.
type collector struct {
	daemon   Daemon
	families []described
}

type described struct {
	Family
	desc *prometheus.Desc
}

func newCollector(d Daemon) collector {
	c := collector{daemon: d}
	for _, g := range groups {
		for _, f := range g.Families {
			c.families = append(c.families, described{f, prometheus.NewDesc(f.Name, f.Help, slices.Clone(f.Labels), nil)})
		}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.families {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	sample := c.daemon.Sample()
	for _, f := range c.families {
		f.collect(&sample, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(f.desc, f.Type, value, labels...)
		})
	}
}
