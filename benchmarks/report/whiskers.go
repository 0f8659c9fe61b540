package report

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// whiskers are vertical lines from the lowest to the highest value. plotter's error
// bars stand on whole coordinates only, not beside them as a group's bars do.
type whiskers struct {
	spreads spreads
	offset  vg.Length
}

// Plot implements plot.Plotter.
func (w *whiskers) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := draw.LineStyle{Color: color.Black, Width: vg.Points(0.8)}
	const half = 2 // of the ends' width, in points
	for i, s := range w.spreads {
		middle := x(float64(i)) + w.offset
		low, high := y(s.Min), y(s.Max)
		c.StrokeLine2(style, middle, low, middle, high)
		for _, end := range []vg.Length{low, high} {
			c.StrokeLine2(style, middle-half, end, middle+half, end)
		}
	}
}

// DataRange implements plot.DataRanger: the axis reaches to the highest value.
func (w *whiskers) DataRange() (xmin, xmax, ymin, ymax float64) {
	for _, s := range w.spreads {
		ymax = max(ymax, s.Max)
	}
	return 0, float64(len(w.spreads) - 1), 0, ymax
}
