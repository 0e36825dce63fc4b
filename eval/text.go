package eval

import (
	"bufio"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/forager-rl/forager"
)

// WriteText writes the report as aligned tables.
func (r Report) WriteText(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%d questions, %d rollouts; %g %% intervals, %d resamples\n",
		r.Questions, r.Rollouts, 100*r.Confidence, r.Resamples)
	if r.Unplayed > 0 || r.Failed > 0 {
		fmt.Fprintf(out, "left out: %d tasks without a usable rollout, %d rollouts whose environment failed\n", r.Unplayed, r.Failed)
	}
	fmt.Fprint(out, "finish:")
	for _, f := range []forager.Finish{forager.FinishAnswer, forager.FinishTurns, forager.FinishLength, forager.FinishRetriever} {
		fmt.Fprintf(out, " %s %d", f, r.Finish[f])
	}
	fmt.Fprint(out, "\n\n")
	r.write(out)
	return out.Flush()
}

// write shows the whole with intervals, then one line a part. The bufio.Writer
// below keeps the first error.
func (b Breakdown) write(out *bufio.Writer) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "metric\toverall\tmacro over hops")
	for _, name := range Metrics() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, interval(b.Overall, name), interval(b.Macro, name))
	}
	_ = table.Flush()

	fmt.Fprintln(out)
	table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "part\tn\tem\tf1\tsub_em\trecall\tvalid\tsearches\ttokens")
	for _, part := range []struct {
		kind   string
		groups []Group
	}{{"hops", b.ByHops}, {"data set", b.ByDataset}, {"type", b.ByType}} {
		for _, g := range part.groups {
			fmt.Fprintf(table, "%s %s\t%d", part.kind, g.Name, g.Questions)
			for _, name := range Metrics() {
				if name == EM {
					fmt.Fprint(table, "\t", interval(g, name))
					continue
				}
				fmt.Fprint(table, "\t", point(g, name))
			}
			fmt.Fprintln(table)
		}
	}
	_ = table.Flush()
}

func interval(g Group, name string) string {
	e, known := g.Metrics[name]
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", e.Mean, e.Low, e.High)
}

func point(g Group, name string) string {
	e, known := g.Metrics[name]
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.3f", e.Mean)
}
