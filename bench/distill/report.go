package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rundir"
)

// report collects measurements on the turns of unseen questions.
type report struct {
	turns  []turn
	values map[cell][]measurement // by seed
}

type cell struct {
	kind   rewardmodel.Kind
	labels int
}

// measurement is how well scores tell helpful turns from others.
type measurement struct {
	all    float64 // AUC over all turns
	close  float64 // AUC without queries that are about another question
	within float64 // mean AUC inside questions
	right  float64 // share of turns on the right side of the threshold; of ranking models, on the right side of the mean
}

func newReport(turns []turn) *report {
	return &report{turns: turns, values: make(map[cell][]measurement)}
}

// measure scores all turns with a model.
func (r *report) measure(m *rewardmodel.Model, labels int) {
	scores := make([]float64, len(r.turns))
	middle := 0.5
	if m.Kind() == rewardmodel.Ranking {
		middle = 0
	}
	for i, t := range r.turns {
		scores[i] = m.Score(t.example)
	}
	c := cell{m.Kind(), labels}
	r.values[c] = append(r.values[c], r.judge(scores, middle))
}

func (r *report) judge(scores []float64, middle float64) measurement {
	var near []turn
	var nearScores []float64
	right := 0.0
	for i, t := range r.turns {
		if !t.astray {
			near, nearScores = append(near, t), append(nearScores, scores[i])
		}
		if scores[i] > middle == (t.label > 0.5) {
			right++
		}
	}
	return measurement{
		all: auc(r.turns, scores), close: auc(near, nearScores), within: aucWithin(r.turns, scores),
		right: right / float64(len(r.turns)),
	}
}

// baselines score turns by one number that needs no learning.
var baselines = []struct {
	name  string
	score func(turn) float64
}{
	{"words of the question found", overlap},
	{"BM25 of the query", func(t turn) float64 { return t.bm25 }},
}

// baseline measures the i-th baseline.
func (r *report) baseline(i int) measurement {
	scores := make([]float64, len(r.turns))
	for j, t := range r.turns {
		scores[j] = baselines[i].score(t)
	}
	return r.judge(scores, 0)
}

// overlap is the share of the distinct words of the question that the
// observation has.
func overlap(t turn) float64 {
	split := func(text string) map[string]bool {
		words := make(map[string]bool)
		for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			words[w] = true
		}
		return words
	}
	question, observation, found := split(t.example.Question), split(t.example.Observation), 0.0
	for w := range question {
		if observation[w] {
			found++
		}
	}
	return found / float64(len(question))
}

// print writes the tables.
func (r *report) print(out io.Writer) {
	helpful, astray := 0, 0
	for _, t := range r.turns {
		if t.label > 0.5 {
			helpful++
		}
		if t.astray {
			astray++
		}
	}
	fmt.Fprintf(out, "%d turns of unseen questions, %d of them helpful, %d with a query about another question.\n\n", len(r.turns), helpful, astray)
	fmt.Fprintln(out, "| score | labels | AUC | without queries about other questions | within a question | right side |")
	fmt.Fprintln(out, "|---|---:|---|---|---|---|")
	for i, b := range baselines {
		m := r.baseline(i)
		fmt.Fprintf(out, "| %s | 0 | %.3f | %.3f | %.3f | |\n", b.name, m.all, m.close, m.within)
	}
	for _, kind := range kinds {
		for _, labels := range marks {
			if v := r.values[cell{kind, labels}]; len(v) > 0 {
				fmt.Fprintf(out, "| %s | %d | %s | %s | %s | %s |\n", kind, labels,
					interval(v, func(m measurement) float64 { return m.all }),
					interval(v, func(m measurement) float64 { return m.close }),
					interval(v, func(m measurement) float64 { return m.within }),
					interval(v, func(m measurement) float64 { return m.right }))
			}
		}
	}
}

// interval is the mean over seeds, the least and the most.
func interval(v []measurement, of func(measurement) float64) string {
	values := make([]float64, len(v))
	for i := range v {
		values[i] = of(v[i])
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", mean(values), slices.Min(values), slices.Max(values))
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// chart draws the AUC against the number of labels.
func (r *report) chart() []byte {
	c := rundir.Chart{Title: "AUC on turns of unseen questions", XLabel: "labels, logarithm to base 10", YLabel: "AUC"}
	for _, kind := range kinds {
		s := rundir.Series{Name: string(kind), Markers: true}
		for _, labels := range marks {
			v := r.values[cell{kind, labels}]
			if len(v) == 0 {
				continue
			}
			values := make([]float64, len(v))
			for i := range v {
				values[i] = v[i].all
			}
			s.Points = append(s.Points, rundir.Point{X: math.Log10(float64(labels)), Y: mean(values)})
		}
		c.Series = append(c.Series, s)
	}
	for i, b := range baselines {
		y := r.baseline(i).all
		c.Series = append(c.Series, rundir.Series{Name: b.name, Points: []rundir.Point{
			{X: math.Log10(float64(marks[0])), Y: y}, {X: math.Log10(float64(marks[len(marks)-1])), Y: y},
		}})
	}
	return c.SVG()
}
