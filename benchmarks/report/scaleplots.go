package report

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// figure is lines over the number of nodes.
type figure struct {
	file  string // without its ending
	title string
	unit  string
	goal  float64
	lines []curve
}

// curve is a line of a figure.
type curve struct {
	title  string
	dashed bool
	color  int // of the palette
	points plotter.XYs
}

// ScalePlots writes one SVG file for each of: how long changes take, memory, and the
// processor time of an idle weftd.
func ScalePlots(dir string, r *result.Run) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for plots: %w", err)
	}
	for _, f := range figures(r) {
		path := filepath.Join(dir, f.file+".svg")
		if err := writeSVG(path, func(c draw.Canvas) error { return drawLines(c, r, f) }); err != nil {
			return fmt.Errorf("plot %s: %w", f.file, err)
		}
	}
	return nil
}

func figures(r *result.Run) []figure {
	changes := figure{file: "scale-change", title: "One change among many nodes, until it is in force (less is better)", unit: "s", goal: 1}
	memory := figure{file: "scale-memory", title: "Memory of weftd (less is better)", unit: "MB", goal: 150}
	idle := figure{file: "scale-idle", title: "CPU of weftd while nothing changes (less is better)", unit: "% of a core", goal: 1}
	for i, s := range r.Systems {
		name, hue := s.Name, 1+i // not grey
		if name == scale.File {
			name = fmt.Sprintf("%s, %d CIDRs a node", name, r.CIDRs)
		}
		add := func(f *figure, title string, dashed bool, value func(profile string) (float64, bool)) {
			if points := overNodes(r, value); len(points) > 0 {
				f.lines = append(f.lines, curve{title, dashed, hue, points})
			}
		}
		metric := func(cell, key string) func(string) (float64, bool) {
			return func(profile string) (float64, bool) {
				spread := r.Spread(result.Key{Profile: profile, System: s.Name, Cell: cell, Metric: key})
				return spread.Median, spread.N > 0
			}
		}
		if s.Name != scale.File {
			add(&changes, name+", p99", false, func(profile string) (float64, bool) { return changesOf(r, profile, s.Name, 99) })
			add(&changes, name+", p50", true, func(profile string) (float64, bool) { return changesOf(r, profile, s.Name, 50) })
		}
		add(&memory, name+", at most", false, metric(scale.Idle, scale.Peak))
		add(&memory, name+", idle", true, metric(scale.Idle, scale.Resident))
		add(&idle, name, false, metric(scale.Idle, scale.CPU))
	}
	return []figure{changes, memory, idle}
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

func drawLines(c draw.Canvas, r *result.Run, f figure) error {
	p := newPlot(f.title, f.unit)
	legend := newLegend()
	p.X.Label.Text = "nodes"
	p.X.Scale = plot.LogScale{}
	var ticks []plot.Tick
	for _, n := range r.Nodes {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: scale.Profile(n)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	for _, l := range f.lines {
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
	goal := plotter.NewFunction(func(float64) float64 { return f.goal })
	goal.Color, goal.Dashes = color.Black, []vg.Length{vg.Points(1), vg.Points(2)}
	p.Add(goal)
	p.Y.Max = max(p.Y.Max, f.goal*1.05)
	legend.Add(fmt.Sprintf("goal: %g %s", f.goal, f.unit), goal)
	// A single number of nodes would make an axis without length.
	p.X.Min, p.X.Max = p.X.Min*0.9, p.X.Max*1.1
	place(c, p, legend)
	return nil
}
