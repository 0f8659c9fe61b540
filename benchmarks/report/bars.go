package report

import (
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"weft/benchmarks/measure"
	"weft/benchmarks/result"
)

// groupsWidth is what the bars of all profiles share.
const groupsWidth = 14 * vg.Centimeter

// bars are a figure per metric: bars of the medians with lines from the lowest to the
// highest value, the profiles side by side.
func bars(r *result.Run) (all []figure) {
	for _, row := range rows(r) {
		better := map[measure.Better]string{measure.Higher: "more is better", measure.Lower: "less is better"}[row.metric.Better]
		all = append(all, figure{
			file:  strings.ReplaceAll(row.cell.Name+"-"+row.metric.Key, "_", "-"),
			title: fmt.Sprintf("%s: %s (%s)", row.cell.Title, row.metric.Title, better),
			unit:  row.metric.Unit,
			draw:  func(p *plot.Plot, legend *plot.Legend) error { return drawBars(p, legend, r, row) },
		})
	}
	return all
}

func drawBars(p *plot.Plot, legend *plot.Legend, r *result.Run, row row) error {
	p.NominalX(each(r.Profiles, profileName)...)
	p.X.Min, p.X.Max = -0.5, float64(len(r.Profiles))-0.5
	width := groupsWidth / vg.Length(len(r.Profiles)) / vg.Length(len(r.Systems)+1)
	for i, s := range r.Systems {
		spreads := make(spreads, len(r.Profiles))
		for j, profile := range r.Profiles {
			spreads[j] = r.Spread(row.key(profile.Name, s.Name))
		}
		bars, err := plotter.NewBarChart(spreads, width*0.9)
		if err != nil {
			return err
		}
		bars.Offset = (vg.Length(i) - vg.Length(len(r.Systems)-1)/2) * width
		bars.Color = palette[i%len(palette)]
		bars.LineStyle.Width = 0
		p.Add(bars, &whiskers{spreads: spreads, offset: bars.Offset})
		name := s.Name
		if s.Encrypted {
			name += " (encrypted)"
		}
		legend.Add(name, bars)
	}
	return nil
}

// spreads are the heights of bars.
type spreads []result.Spread

// Len implements plotter.Valuer.
func (s spreads) Len() int { return len(s) }

// Value implements plotter.Valuer.
func (s spreads) Value(i int) float64 { return s[i].Median }

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
