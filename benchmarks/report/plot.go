package report

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"weft/benchmarks/result"
)

// palette is that of Okabe and Ito, whose colours people with any colour vision can
// distinguish, and then the same colours, darker: https://jfly.uni-koeln.de/color
var palette = append(okabeIto, darker(okabeIto)...)

var okabeIto = []color.RGBA{
	{0x99, 0x99, 0x99, 0xff}, // grey
	{0x00, 0x72, 0xb2, 0xff}, // blue
	{0xe6, 0x9f, 0x00, 0xff}, // orange
	{0x00, 0x9e, 0x73, 0xff}, // bluish green
	{0x56, 0xb4, 0xe9, 0xff}, // sky blue
	{0xcc, 0x79, 0xa7, 0xff}, // reddish purple
	{0xd5, 0x5e, 0x00, 0xff}, // vermilion
	{0xf0, 0xe4, 0x42, 0xff}, // yellow
}

func darker(colors []color.RGBA) (dark []color.RGBA) {
	for _, c := range colors {
		dark = append(dark, color.RGBA{c.R / 2, c.G / 2, c.B / 2, c.A})
	}
	return dark
}

const (
	plotWidth   = 25 * vg.Centimeter
	plotHeight  = 10 * vg.Centimeter
	legendWidth = 6 * vg.Centimeter
	margin      = 0.4 * vg.Centimeter
)

// figure is one plot.
type figure struct {
	file        string // without its ending
	title, unit string

	// draw adds what is shown, and what the legend says of it.
	draw func(*plot.Plot, *plot.Legend) error
}

// Plots writes one SVG file per figure into a folder.
func Plots(dir string, r *result.Run) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for plots: %w", err)
	}
	for _, f := range kindOf(r).figures(r) {
		p, legend := newPlot(f.title, f.unit), newLegend()
		err := f.draw(p, legend)
		if err == nil {
			err = writeSVG(filepath.Join(dir, f.file+".svg"), p, legend)
		}
		if err != nil {
			return fmt.Errorf("plot %s: %w", f.file, err)
		}
	}
	return nil
}

// writeSVG writes a plot with the legend to the right of it, where it covers nothing.
func writeSVG(path string, p *plot.Plot, legend *plot.Legend) error {
	canvas := vgsvg.New(plotWidth, plotHeight)
	c := draw.New(canvas)
	// A page may be dark; what is drawn on it is black.
	c.FillPolygon(color.White, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
	c = draw.Crop(c, margin, -margin, margin, -margin)
	p.Draw(draw.Crop(c, 0, -legendWidth, 0, 0))
	legend.Draw(draw.Crop(c, plotWidth-2*margin-legendWidth, 0, 0, -1.2*vg.Centimeter))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	return os.WriteFile(path, bytes.ReplaceAll(svg.Bytes(), []byte(svgFont), []byte(svgFont+svgFontsAlike)), 0o644)
}

// Where a reader's machine has not the font that text was laid out for, one of the
// same widths must stand in, and not the browser's default.
const (
	svgFont       = "font-family:Liberation Sans"
	svgFontsAlike = ",Arial,Helvetica,sans-serif"
)

func newLegend() *plot.Legend {
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, 0.15*vg.Centimeter
	legend.TextStyle.Font = sans
	return &legend
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}

// newPlot has a grid of horizontal lines from 0 on.
func newPlot(title, unit string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 0.4 * vg.Centimeter
	p.Y.Label.Text = unit
	p.Y.Min = 0
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
		&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font} {
		*f = sans
	}
	p.Title.TextStyle.Font.Size = 12
	grid := plotter.NewGrid()
	grid.Vertical.Color = nil
	grid.Horizontal.Color = color.Gray{0xc0}
	p.Add(grid)
	return p
}
