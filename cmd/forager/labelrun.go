package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv/audit"
)

// searched is what identifies a search step: the same step got by another
// rollout has the same label.
type searched struct{ task, query, observation string }

// auditRun compares the labels of a run with gold, one report for each judge and
// rubric. Which passages a turn found is known from the rollouts that the run
// has learned from; labels of other turns are left out.
func auditRun(ctx context.Context, cfg config, f auditFlags, log *slog.Logger) ([]audit.Report, error) {
	rows, err := (&labelOrigin{runDir: f.runDir, nats: f.nats}).read(ctx, log)
	if err != nil {
		return nil, err
	}
	files, err := (&origin{runDir: f.runDir}).files()
	if err != nil {
		return nil, err
	}
	gold, err := runGold(files, cfg, f.gold)
	if err != nil {
		return nil, err
	}
	type judged struct{ source, judge, rubric string }
	var order []judged
	outcomes := map[judged][]audit.Outcome{}
	for _, l := range gather(rows) {
		at := slices.IndexFunc(l.turns, func(t turn) bool { _, known := gold[t]; return known })
		if at < 0 {
			continue
		}
		by := judged{l.Source, l.Judge, l.Rubric}
		if outcomes[by] == nil {
			order = append(order, by)
		}
		outcomes[by] = append(outcomes[by], audit.Outcome{Turn: audit.Turn{Gold: gold[l.turns[at]]}, Value: l.Value, Judgement: l.Judgement})
	}
	if len(order) == 0 {
		return nil, forager.WithHint(fmt.Errorf("gold labels of the %d labels of %s: %w", len(rows), f.runDir, forager.ErrNotFound), "they come from the gold passages of the run's questions, or from --gold")
	}
	reports := make([]audit.Report, len(order))
	for i, by := range order {
		reports[i] = audit.NewReport(by.judge+" for "+by.source, by.rubric, audit.Result{Outcomes: outcomes[by]}, f.threshold)
	}
	return reports, nil
}

// runGold gives the gold label of the search turns in rollout files: what a gold
// file says of the same step, or else whether a gold passage was found. Turns of
// which neither is known are left out.
func runGold(files []string, cfg config, goldFile string) (map[turn]float64, error) {
	tasks := questions(cfg.Config)
	var known map[searched]float64
	if goldFile != "" {
		turns, err := audit.ReadGold(goldFile, tasks)
		if err != nil {
			return nil, err
		}
		known = make(map[searched]float64, len(turns))
		for _, t := range turns {
			known[searched{t.Task.ID, reward.Normalize(t.Query), forager.ObservationKey(t.Passages)}] = t.Gold
		}
	}
	gold := map[turn]float64{}
	err := each(files, func(_ int, r *forager.Rollout) bool {
		task := tasks[r.TaskID]
		for i, t := range r.Turns {
			if t.Kind != forager.TurnSearch {
				continue
			}
			if known != nil {
				if label, ok := known[searched{r.TaskID, reward.Normalize(t.Text), t.ObservationKey}]; ok {
					gold[turn{r.ID, i}] = label
				}
				continue
			}
			if len(task.Gold) == 0 {
				continue
			}
			label := 0.0
			if slices.ContainsFunc(t.DocIDs, func(id string) bool { return slices.Contains(task.Gold, id) }) {
				label = 1
			}
			gold[turn{r.ID, i}] = label
		}
		return true
	})
	return gold, err
}
