package report

import (
	"fmt"
	"os"
	"path/filepath"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"weft/benchmarks/soak"
)

// PlotSoak draws what a weftd used in the course of a soak into a folder, as soak.svg.
func PlotSoak(dir string, samples []soak.Sample) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for plots: %w", err)
	}
	p, legend := newPlot("weftd while pods, peers, keys and other nodes change", "MB, or number"), newLegend()
	p.X.Label.Text = "minutes"
	for i, q := range soak.Quantities() {
		var points plotter.XYs
		for _, s := range samples {
			points = append(points, plotter.XY{X: s.At.Minutes(), Y: q.Of(s)})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return fmt.Errorf("plot %s: %w", q.Name, err)
		}
		line.Color, line.Width = palette[1+i], vg.Points(1.5)
		p.Add(line)
		legend.Add(q.Name, line)
	}
	return writeSVG(filepath.Join(dir, "soak.svg"), p, legend)
}
