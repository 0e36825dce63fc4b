package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/eval"
	"github.com/forager-rl/forager/rundir"
)

const reportName = "report.md"

// report writes report.md: the curve of the run so far and, when there are two
// evaluations, the held-out table.
func (p *process) report(result TrainResult) (string, error) {
	rows, err := rundir.ReadMetrics(p.dir.MetricsPath())
	if errors.Is(err, forager.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	curve := func(name, key string) rundir.Series {
		s := rundir.Series{Name: name, Smooth: 8}
		for _, r := range rows {
			if v, ok := r.Values[key]; ok {
				s.Points = append(s.Points, rundir.Point{X: float64(r.Step), Y: v})
			}
		}
		return s
	}
	r := rundir.Report{
		Title: "Run " + p.run,
		Curve: rundir.Chart{
			Title: "Training rollouts", XLabel: "step", YLabel: "mean over rollouts",
			Series: []rundir.Series{curve("exact match", "em"), curve("searches per question", "searches")},
		},
		Config: []rundir.Entry{
			{Name: "seed", Value: fmt.Sprint(p.cfg.Run.Seed)},
			{Name: "tasks", Value: orBuiltIn(p.cfg.Data.Tasks, "world facts")},
			{Name: "starting policy", Value: orBuiltIn(p.cfg.Policy.Path, "warm start")},
			{Name: "algorithm", Value: "GRPO"},
			{Name: "groups × samples per step", Value: fmt.Sprintf("%d × %d", p.cfg.Learner.GroupsPerStep, p.cfg.Learner.GroupSize)},
			{Name: "learning rate", Value: fmt.Sprint(p.cfg.Learner.LearningRate)},
			{Name: "allowed lag, versions", Value: fmt.Sprint(p.cfg.Learner.Lag)},
			{Name: "settings digest", Value: p.cfg.digest()},
		},
		Links: []rundir.Link{
			{Text: "resolved settings", Path: "config.yaml"},
			{Text: "one line of metrics per step", Path: "metrics.jsonl"},
			{Text: "rollouts that were learned from, as Arrow IPC files", Path: "rollouts"},
			{Text: "checkpoints", Path: "checkpoints"},
		},
	}
	state := "stopped early; it can be resumed"
	if result.Finished {
		state = "finished"
	}
	if n := len(rows); n > 0 {
		last := rows[n-1]
		elapsed := time.Duration(last.Values["elapsed_seconds"] * float64(time.Second)).Round(time.Second)
		r.Summary = fmt.Sprintf("The run %s after %d steps and %s of training: %.2f million tokens rolled out, %.2f million trained on.",
			state, last.Step, elapsed, last.Values["total_rolled_out_tokens"]/1e6, last.Values["total_trained_tokens"]/1e6)
	}
	if result.Before != nil && result.After != nil {
		table, err := p.heldOutTable(*result.Before, *result.After)
		if err != nil {
			return "", err
		}
		r.Tables = append(r.Tables, table)
	} else {
		r.Summary += " The held-out questions were not played; forager eval --run-dir plays them."
	}
	return filepath.Join(p.dir.Path(), reportName), rundir.WriteReport(p.dir.Path(), r)
}

func orBuiltIn(path, name string) string {
	if path == "" {
		return "built-in " + name
	}
	return path
}

// heldOutTable sets before and after side by side, whole and by hops.
func (p *process) heldOutTable(before, after eval.Report) (rundir.Table, error) {
	change, err := eval.Compare(before, after, eval.DefaultConfig(), rand.New(rand.NewPCG(p.cfg.Run.Seed, 1)))
	if err != nil {
		return rundir.Table{}, err
	}
	t := rundir.Table{
		Title:   fmt.Sprintf("Held-out questions (%s)", p.cfg.Eval.Split),
		Note:    fmt.Sprintf("%d questions, 95 %% bootstrap intervals over questions; the change is paired by question. Macro weighs every number of hops the same.", after.Questions),
		Columns: []string{"metric", "before", "after", "change"},
	}
	row := func(name, metric string, b, a, c eval.Group) {
		show := func(g eval.Group, format string) string {
			e, ok := g.Metrics[metric]
			if !ok {
				return "–"
			}
			return fmt.Sprintf(format+" ["+format+", "+format+"]", e.Mean, e.Low, e.High)
		}
		t.Rows = append(t.Rows, []string{name, show(b, "%.3f"), show(a, "%.3f"), show(c, "%+.3f")})
	}
	row("exact match, macro over hops", eval.EM, before.Macro, after.Macro, change.Macro)
	for i := range min(len(before.ByHops), len(after.ByHops), len(change.ByHops)) {
		row("exact match, hops: "+after.ByHops[i].Name, eval.EM, before.ByHops[i], after.ByHops[i], change.ByHops[i])
	}
	for _, m := range []struct{ name, metric string }{
		{"exact match", eval.EM},
		{"F1", eval.F1},
		{"evidence recall", eval.EvidenceRecall},
		{"valid format", eval.ValidFormat},
		{"searches per question", eval.Searches},
		{"policy tokens per question", eval.PolicyTokens},
	} {
		row(m.name, m.metric, before.Overall, after.Overall, change.Overall)
	}
	return t, nil
}
