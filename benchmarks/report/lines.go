package report

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// curves are the lines of a figure, and its goal.
type curves struct {
	figure
	goal  float64
	lines []curve
}

// curve is one of the lines.
type curve struct {
	title  string
	dashed bool
	color  int // of the palette
	points plotter.XYs
}

// lines are three figures: how long changes take, memory, and the processor time of an
// idle weftd.
func lines(r *result.Run) []figure {
	start := func(file, title, unit string, goal float64) *curves {
		return &curves{figure: figure{file: file, title: title + " (less is better)", unit: unit}, goal: goal}
	}
	changes := start("scale-change", "One change among many nodes, until it is active", "s", 1)
	memory := start("scale-memory", "Memory of weftd", "MB", 150)
	idle := start("scale-idle", "CPU of weftd while nothing changes", "% of a core", 1)
	for i, s := range r.Systems {
		name, hue := s.Name, 1+i // not grey
		if name == scale.File {
			name = fmt.Sprintf("%s, %d CIDRs a node", name, r.CIDRs)
		}
		add := func(c *curves, title string, dashed bool, value func(profile string) (float64, bool)) {
			if points := overNodes(r, value); len(points) > 0 {
				c.lines = append(c.lines, curve{title, dashed, hue, points})
			}
		}
		metric := func(cell, key string) func(string) (float64, bool) {
			return func(profile string) (float64, bool) {
				spread := r.Spread(result.Key{Profile: profile, System: s.Name, Cell: cell, Metric: key})
				return spread.Median, spread.N > 0
			}
		}
		if s.Name != scale.File {
			add(changes, name+", p99", false, func(profile string) (float64, bool) { return changesOf(r, profile, s.Name, 99) })
			add(changes, name+", p50", true, func(profile string) (float64, bool) { return changesOf(r, profile, s.Name, 50) })
		}
		add(memory, name+", at most", false, metric(scale.Idle, scale.Peak))
		add(memory, name+", idle", true, metric(scale.Idle, scale.Resident))
		add(idle, name, false, metric(scale.Idle, scale.CPU))
	}
	var all []figure
	for _, c := range []*curves{changes, memory, idle} {
		c.draw = func(p *plot.Plot, legend *plot.Legend) error { return c.drawOver(r.Nodes, p, legend) }
		all = append(all, c.figure)
	}
	return all
}

// overNodes returns a value for each number of nodes that has one.
func overNodes(r *result.Run, value func(profile string) (float64, bool)) (points plotter.XYs) {
	for _, n := range r.Nodes {
		if y, ok := value(scale.Profile(n)); ok {
			points = append(points, plotter.XY{X: float64(n), Y: y})
		}
	}
	return points
}

// changesOf returns a percentile of all single changes, of whatever kind, in seconds.
func changesOf(r *result.Run, profile, source string, percent float64) (float64, bool) {
	var all []float64
	for _, s := range r.Samples {
		for _, cell := range scale.Changes() {
			if s.Profile == profile && s.System == source && s.Cell == cell {
				all = append(all, s.Calls[cell]...)
			}
		}
	}
	return result.Percentile(all, percent) / 1000, len(all) > 0
}

func (c *curves) drawOver(nodes []int, p *plot.Plot, legend *plot.Legend) error {
	p.X.Label.Text = "nodes"
	p.X.Scale = plot.LogScale{}
	var ticks []plot.Tick
	for _, n := range nodes {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: scale.Profile(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	for _, l := range c.lines {
		line, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return err
		}
		line.Color, line.Width = palette[l.color%len(palette)], vg.Points(1.5)
		points.Color, points.Shape, points.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.5)
		if l.dashed {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		p.Add(line, points)
		legend.Add(l.title, line, points)
	}
	goal := plotter.NewFunction(func(float64) float64 { return c.goal })
	goal.Color, goal.Dashes = color.Black, []vg.Length{vg.Points(1), vg.Points(2)}
	p.Add(goal)
	p.Y.Max = max(p.Y.Max, c.goal*1.05)
	legend.Add(fmt.Sprintf("goal: %g %s", c.goal, c.unit), goal)
	// A single number of nodes would make an axis without length.
	p.X.Min, p.X.Max = p.X.Min*0.9, p.X.Max*1.1
	return nil
}
