package audit

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Report is what an audit found.
type Report struct {
	Judge  string `json:"judge"`
	Rubric string `json:"rubric"` // its version
	Turns  int    `json:"turns"`  // with a gold label

	Failed   int `json:"failed"`   // turns without a label in the end; in no other figure below but these
	Answers  int `json:"answers"`  // of the judge, second tries included
	Unusable int `json:"unusable"` // of those, the ones that could not be read

	Seconds          float64 `json:"seconds"`
	PromptTokens     int     `json:"prompt_tokens"`
	CompletionTokens int     `json:"completion_tokens"`

	Agreement
}

// NewReport compares the labels of a result with gold; see Agree for threshold.
func NewReport(judge, rubric string, r Result, threshold float64) Report {
	report := Report{Judge: judge, Rubric: rubric, Turns: len(r.Outcomes), Seconds: r.Took.Seconds()}
	var pairs []Pair
	for _, o := range r.Outcomes {
		report.Answers += o.Unusable
		report.Unusable += o.Unusable
		report.PromptTokens += o.Judgement.PromptTokens
		report.CompletionTokens += o.Judgement.CompletionTokens
		if o.Value == nil {
			report.Failed++
			continue
		}
		report.Answers++
		pairs = append(pairs, Pair{Gold: o.Turn.Gold, Judged: *o.Value})
	}
	report.Agreement = Agree(pairs, threshold)
	return report
}

// WriteText writes the report as aligned text.
func (r Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w) // keeps the first error for Flush
	fmt.Fprintf(out, "judge %s, rubric %s, %d turns with gold labels; 95 %% intervals\n\n", r.Judge, r.Rubric, r.Turns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	if r.N > 0 {
		row("agreement", "%s  (always the most frequent gold label: %.3f)", r.Share, r.Majority)
		row("Cohen's kappa", "%s", unless(r.Kappa == nil, func() string { return fmt.Sprintf("%.3f", *r.Kappa) }))
		row("AUC", "%s", unless(r.AUC == nil, func() string { return r.AUC.String() }))
	}
	row("without a label", "%d of %d turns", r.Failed, r.Turns)
	if r.Answers > 0 && r.Seconds > 0 {
		row("parse failures", "%s of %d answers", wilson(r.Unusable, r.Answers), r.Answers)
		row("speed", "%.2f labels/s, %.0f s in all", float64(r.N)/r.Seconds, r.Seconds)
	}
	if r.PromptTokens+r.CompletionTokens > 0 {
		row("tokens", "%d prompt, %d answer, %.0f a label", r.PromptTokens, r.CompletionTokens,
			float64(r.PromptTokens+r.CompletionTokens)/float64(max(1, r.N)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.N > 0 {
		fmt.Fprint(out, "\n")
		if err := r.writeTable(out); err != nil {
			return err
		}
	}
	return out.Flush()
}

// writeTable writes the confusion table.
func (a Agreement) writeTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "gold \\ judge\t%s\t\n", strings.Join(a.Classes, "\t"))
	for i, counts := range a.Table {
		fmt.Fprintf(table, "%s\t", a.Classes[i])
		for _, n := range counts {
			fmt.Fprintf(table, "%d\t", n)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// String writes an interval as 0.800 [0.740, 0.850].
func (i Interval) String() string { return fmt.Sprintf("%.3f [%.3f, %.3f]", i.Value, i.Low, i.High) }

func unless(undefined bool, text func() string) string {
	if undefined {
		return "undefined: gold has one label only"
	}
	return text()
}
