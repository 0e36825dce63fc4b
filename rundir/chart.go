package rundir

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Chart is a line chart over one horizontal axis.
type Chart struct {
	Title  string
	XLabel string
	YLabel string
	Series []Series // at most 6 have colours of their own
}

// Series is one line of a chart. Points with a value that is not finite, or
// beyond 1e15, are left out.
type Series struct {
	Name   string
	Points []Point // ascending by X
	// Smooth draws the points faintly and, over them, their mean over a window
	// of this many points that ends at each point. 0 and 1 draw the points alone.
	Smooth int
	// Markers draws a dot at each point, for values that are few and far apart.
	Markers bool
}

// Point is one value of a series.
type Point struct{ X, Y float64 }

// The chart's measures, in pixels of its own view box.
const (
	chartWidth, chartHeight = 760.0, 400.0
	plotLeft, plotRight     = 64.0, 740.0
	plotTop, plotBottom     = 76.0, 346.0
	tickTarget              = 6   // ticks an axis should have, about
	maxPoints               = 400 // drawn of a line; more are averaged
	maxValue                = 1e15
	minWidth                = 1e-15 // of an axis, in values; below that it shows one value
)

// chartStyle is readable on light and on dark ground: the ground is left
// transparent, and colours follow the reader's setting where it is known.
const chartStyle = `
.text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#57606a}
.title{font-size:16px;font-weight:600;fill:#24292f}
.grid{stroke:#8b949e;stroke-opacity:.25;stroke-width:1}
.axis{stroke:#8b949e;stroke-width:1}
.line{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}
.faint{fill:none;stroke-width:1;stroke-opacity:.35;stroke-linejoin:round}
.s0{stroke:#2f6fd0}.s1{stroke:#d1662a}.s2{stroke:#2e8b57}.s3{stroke:#9650c8}.s4{stroke:#b8860b}.s5{stroke:#c2417c}
.f0{fill:#2f6fd0}.f1{fill:#d1662a}.f2{fill:#2e8b57}.f3{fill:#9650c8}.f4{fill:#b8860b}.f5{fill:#c2417c}
@media (prefers-color-scheme:dark){
.text{fill:#9da7b3}.title{fill:#e6edf3}
.s0{stroke:#6ea8fe}.s1{stroke:#f0955a}.s2{stroke:#5cc48a}.s3{stroke:#c08bf0}.s4{stroke:#e0b040}.s5{stroke:#f07fb0}
.f0{fill:#6ea8fe}.f1{fill:#f0955a}.f2{fill:#5cc48a}.f3{fill:#c08bf0}.f4{fill:#e0b040}.f5{fill:#f07fb0}
}`

const seriesColours = 6

// SVG draws the chart as a complete SVG document.
func (c Chart) SVG() []byte {
	series := make([]Series, len(c.Series))
	for i, s := range c.Series {
		series[i] = s
		series[i].Points = drawable(s.Points)
	}
	x, y := axes(series)

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-label="%s">`+"\n",
		chartWidth, chartHeight, chartWidth, chartHeight, escape(c.Title))
	fmt.Fprintf(&b, "<style>%s\n</style>\n", chartStyle)
	fmt.Fprintf(&b, `<text class="text title" x="%g" y="28">%s</text>`+"\n", plotLeft, escape(c.Title))
	legend(&b, series)
	grid(&b, x, y)
	fmt.Fprintf(&b, `<text class="text" x="%g" y="%g" text-anchor="middle">%s</text>`+"\n",
		(plotLeft+plotRight)/2, chartHeight-14, escape(c.XLabel))
	fmt.Fprintf(&b, `<text class="text" transform="translate(18 %g) rotate(-90)" text-anchor="middle">%s</text>`+"\n",
		(plotTop+plotBottom)/2, escape(c.YLabel))
	for i, s := range series {
		draw(&b, s, i%seriesColours, x, y)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// legend names the lines in one row under the title.
func legend(b *strings.Builder, series []Series) {
	at := plotLeft
	for i, s := range series {
		fmt.Fprintf(b, `<line class="line s%d" x1="%g" y1="50" x2="%g" y2="50"/>`, i%seriesColours, at, at+22)
		if s.Markers {
			fmt.Fprintf(b, `<circle class="f%d" cx="%g" cy="50" r="4"/>`, i%seriesColours, at+11)
		}
		fmt.Fprintf(b, `<text class="text" x="%g" y="54.5">%s</text>`+"\n", at+29, escape(s.Name))
		at += 29 + 7.2*float64(len([]rune(s.Name))) + 22 // 7.2: a wide guess of a letter's width
	}
}

// grid draws the axes with their ticks.
func grid(b *strings.Builder, x, y axis) {
	for _, v := range y.ticks {
		fmt.Fprintf(b, `<line class="grid" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/>`, plotLeft, y.pixel(v), plotRight, y.pixel(v))
		fmt.Fprintf(b, `<text class="text" x="%g" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft-8, y.pixel(v)+4.5, y.label(v))
	}
	for _, v := range x.ticks {
		fmt.Fprintf(b, `<line class="axis" x1="%.1f" y1="%g" x2="%.1f" y2="%g"/>`, x.pixel(v), plotBottom, x.pixel(v), plotBottom+5)
		fmt.Fprintf(b, `<text class="text" x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n", x.pixel(v), plotBottom+20, x.label(v))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%g" y1="%g" x2="%g" y2="%g"/>`+"\n", plotLeft, plotBottom, plotRight, plotBottom)
}

// draw draws one series in its colour.
func draw(b *strings.Builder, s Series, colour int, x, y axis) {
	line := func(class string, points []Point) {
		if len(points) == 0 {
			return
		}
		fmt.Fprintf(b, `<polyline class="%s s%d" points="`, class, colour)
		for _, p := range thin(points) {
			fmt.Fprintf(b, "%.1f,%.1f ", x.pixel(p.X), y.pixel(p.Y))
		}
		b.WriteString("\"/>\n")
	}
	if s.Smooth > 1 {
		line("faint", s.Points)
		line("line", smooth(s.Points, s.Smooth))
	} else {
		line("line", s.Points)
	}
	if s.Markers || len(s.Points) == 1 {
		for _, p := range s.Points {
			fmt.Fprintf(b, `<circle class="f%d" cx="%.1f" cy="%.1f" r="4"/>`+"\n", colour, x.pixel(p.X), y.pixel(p.Y))
		}
	}
}

// axis maps values to pixels.
type axis struct {
	low, high float64 // values at the ends
	from, to  float64 // pixels at the ends
	ticks     []float64
	decimals  int
}

func (a axis) pixel(v float64) float64 {
	return a.from + (v-a.low)/(a.high-a.low)*(a.to-a.from)
}

func (a axis) label(v float64) string {
	if v == 0 {
		v = 0 // never "-0"
	}
	if a.decimals < 0 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', a.decimals, 64)
}

// axes fits both axes to the points: the horizontal one exactly, the vertical
// one out to whole ticks.
func axes(series []Series) (x, y axis) {
	lowX, highX, lowY, highY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			lowX, highX = min(lowX, p.X), max(highX, p.X)
			lowY, highY = min(lowY, p.Y), max(highY, p.Y)
		}
	}
	if lowX > highX { // no points at all
		lowX, highX, lowY, highY = 0, 1, 0, 1
	}
	if lowY > 0 && lowY < highY/2 { // near enough to zero to show it
		lowY = 0
	}
	x = newAxis(lowX, highX, plotLeft, plotRight, false)
	return x, newAxis(lowY, highY, plotBottom, plotTop, true)
}

func newAxis(low, high, from, to float64, whole bool) axis {
	if high-low <= max(minWidth, math.Abs(high)*1e-9) { // one value, or as good as one
		margin := max(math.Abs(high)*0.1, 0.5)
		low, high = low-margin, high+margin
	}
	step := tickStep(high - low)
	first, last := math.Ceil(low/step-1e-9), math.Floor(high/step+1e-9)
	if whole {
		first, last = math.Floor(low/step+1e-9), math.Ceil(high/step-1e-9)
		low, high = first*step, last*step
	}
	a := axis{low: low, high: high, from: from, to: to}
	for i := first; i <= last; i++ {
		a.ticks = append(a.ticks, i*step)
	}
	a.decimals = max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	if a.decimals > 4 || math.Max(math.Abs(low), math.Abs(high)) >= 1e7 {
		a.decimals = -1 // too long: three significant digits
	}
	return a
}

// tickStep is the 1, 2 or 5 times a power of ten that gives about tickTarget
// ticks over a range.
func tickStep(width float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(width/tickTarget)))
	for _, m := range []float64{1, 2, 5} {
		if width/(m*power) <= tickTarget+1 {
			return m * power
		}
	}
	return 10 * power
}

// smooth is the mean of each point and up to window-1 before it.
func smooth(points []Point, window int) []Point {
	out := make([]Point, len(points))
	for i, p := range points {
		from := max(0, i-window+1)
		sum := 0.0
		for _, q := range points[from : i+1] {
			sum += q.Y
		}
		out[i] = Point{p.X, sum / float64(i+1-from)}
	}
	return out
}

// thin averages neighbours until at most maxPoints are left.
func thin(points []Point) []Point {
	if len(points) <= maxPoints {
		return points
	}
	out := make([]Point, maxPoints)
	for i := range out {
		from, to := i*len(points)/maxPoints, (i+1)*len(points)/maxPoints
		for _, p := range points[from:to] {
			out[i].X += p.X / float64(to-from)
			out[i].Y += p.Y / float64(to-from)
		}
	}
	return out
}

// drawable leaves out what no axis can show, NaN included.
func drawable(points []Point) []Point {
	var out []Point
	for _, p := range points {
		if math.Abs(p.X) <= maxValue && math.Abs(p.Y) <= maxValue {
			out = append(out, p)
		}
	}
	return out
}

// escape makes a text safe inside an element or an attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}
