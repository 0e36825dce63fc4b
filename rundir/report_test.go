package rundir

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a report as a run writes it.
func sample() Report {
	r := rand.New(rand.NewPCG(1, 1))
	var reward, em []Point
	for step := range 240 {
		level := 0.32 + 0.58/(1+math.Exp(-(float64(step)-90)/28))
		reward = append(reward, Point{float64(step), level + r.NormFloat64()*0.045})
		if step%30 == 0 || step == 239 {
			em = append(em, Point{float64(step), level - 0.02})
		}
	}
	return Report{
		Title:   "Run 20261122-071500-brave-otter",
		Summary: "Sample: made-up numbers to look at the layout.",
		Curve: Chart{
			Title: "Reward and exact match", XLabel: "learner step", YLabel: "mean over questions",
			Series: []Series{
				{Name: "train reward (mean of 10 steps)", Points: reward, Smooth: 10},
				{Name: "held-out exact match", Points: em, Markers: true},
			},
		},
		Tables: []Table{{
			Title: "Held-out questions", Note: "Exact match, with 95 % bootstrap intervals over 510 questions.",
			Columns: []string{"hops", "before", "after"},
			Rows:    [][]string{{"1", "0.87 [0.82, 0.92]", "0.97 [0.94, 0.99]"}, {"2", "0.28 [0.21, 0.35]", "0.90 [0.85, 0.94]"}, {"all", "0.32 [0.28, 0.36]", "0.89 [0.86, 0.92]"}},
		}},
		Config: []Entry{{"seed", "1"}, {"learner.algorithm", "grpo"}},
		Links:  []Link{{"metrics by step", "metrics.jsonl"}},
	}
}

func TestWriteReport(t *testing.T) {
	dir := t.TempDir()
	if err := WriteReport(dir, sample()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := `# Run 20261122-071500-brave-otter

Sample: made-up numbers to look at the layout.

![Reward and exact match](curve.svg)

## Held-out questions

| hops | before | after |
|---|---:|---:|
| 1 | 0.87 \[0.82, 0.92\] | 0.97 \[0.94, 0.99\] |
| 2 | 0.28 \[0.21, 0.35\] | 0.90 \[0.85, 0.94\] |
| all | 0.32 \[0.28, 0.36\] | 0.89 \[0.86, 0.92\] |

Exact match, with 95 % bootstrap intervals over 510 questions.

## Settings

| setting | value |
|---|---|
| seed | 1 |
| learner.algorithm | grpo |

## Files

- [metrics by step](<metrics.jsonl>)
`
	if string(data) != want {
		t.Errorf("got:\n%s", data)
	}
	if got := names(t, dir); fmt.Sprint(got) != "[curve.svg report.md]" {
		t.Errorf("left: %v", got)
	}
	if to := os.Getenv("FORAGER_TEST_SAMPLE_REPORT"); to != "" { // to look at it
		if err := WriteReport(to, sample()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportRefusesRaggedTable(t *testing.T) {
	dir := t.TempDir()
	r := sample()
	r.Tables[0].Rows[1] = []string{"2"}
	if err := WriteReport(dir, r); err == nil || !strings.Contains(err.Error(), "row 2 has 1 cells") {
		t.Errorf("got %v", err)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestReportEscapes(t *testing.T) {
	r := Report{Title: "a\nb", Tables: []Table{{Title: "t", Columns: []string{"q"}, Rows: [][]string{{"x | y\n<img>"}}}}}
	text, err := r.markdown()
	if err != nil || !strings.Contains(text, `| x \| y &lt;img> |`) || !strings.HasPrefix(text, "# a b\n") {
		t.Errorf("got %q, %v", text, err)
	}
}

// wellFormed reads the picture as XML and looks for numbers that cannot be drawn.
func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	dec := xml.NewDecoder(bytes.NewReader(svg))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local != "aria-label" && (strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf")) {
					t.Fatalf("%s=%s", a.Name.Local, a.Value)
				}
			}
		}
	}
}

func TestChart(t *testing.T) {
	many := make([]Point, 5000)
	for i := range many {
		many[i] = Point{float64(i), float64(i)}
	}
	for name, points := range map[string][]Point{
		"none":       nil,
		"one":        {{3, 0.5}},
		"flat":       {{0, 0}, {1, 0}},
		"not finite": {{0, math.NaN()}, {math.Inf(1), 1}, {1, math.Inf(-1)}},
		"negative":   {{-5, -0.01}, {5, -3000}},
		"tiny":       {{0, 1e-12}, {1, 3e-12}},
		"huge":       {{0, 1e12}, {1, -3e12}},
		"many":       many,
	} {
		t.Run(name, func(t *testing.T) {
			c := Chart{Title: `a < b & "c"`, Series: []Series{{Name: "<s>", Points: points, Smooth: 5, Markers: true}}}
			svg := c.SVG()
			wellFormed(t, svg)
			if bytes.Contains(svg, []byte(">-0<")) || bytes.Contains(svg, []byte(">-0.0")) && name != "negative" {
				t.Error("a tick is labelled -0")
			}
		})
	}
	if got := thin(many); len(got) != maxPoints || got[0].X <= 0 || got[maxPoints-1].X >= 4999 {
		t.Errorf("%d points from %v to %v", len(got), got[0], got[len(got)-1])
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 1, "[0.0 0.2 0.4 0.6 0.8 1.0]"},
		{0, 0.93, "[0.0 0.2 0.4 0.6 0.8 1.0]"},
		{0, 239, "[0 50 100 150 200 250]"},
		{-0.3, 0.4, "[-0.3 -0.2 -0.1 0.0 0.1 0.2 0.3 0.4]"},
		{0, 0.004, "[0.000 0.001 0.002 0.003 0.004]"},
	} {
		a := newAxis(c.low, c.high, 0, 1, true)
		var got []string
		for _, v := range a.ticks {
			got = append(got, a.label(v))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%v to %v: got %v, want %s", c.low, c.high, got, c.want)
		}
	}
}

func FuzzChart(f *testing.F) {
	f.Add(0.0, 1.0, 2.0, 3.0, "title")
	f.Add(-1e300, 1e300, math.MaxFloat64, -math.MaxFloat64, "\x00<>&")
	f.Add(5e-324, 1e-320, 0.0, math.Copysign(0, -1), "")
	f.Fuzz(func(t *testing.T, a, b, c, d float64, title string) {
		chart := Chart{Title: title, Series: []Series{{Name: title, Points: []Point{{a, b}, {c, d}}, Markers: true}}}
		if len(chart.SVG()) > 1<<20 {
			t.Fatal("too long")
		}
		wellFormed(t, chart.SVG())
	})
}
