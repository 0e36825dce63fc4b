package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/node"
)

func (a *app) eval() *cobra.Command {
	cmd := &cobra.Command{
		Use: "eval", Short: "Measure a policy on held-out questions", Args: noArgs,
		Long: `Measure a policy on held-out questions: one greedy episode each, unless
--temperature says otherwise. With --run-dir the newest checkpoint of a run is
measured under the run's own settings, on this machine; with --policy any folder
or .gguf file; with policy.remote.urls the model of those servers, whose tokenizer
--policy names; with none of them the built-in policy.`,
		Example: `  forager eval --run-dir runs/ID --split dev
  forager eval --policy folder --tasks dev.jsonl --corpus corpus.jsonl --json
  forager eval --policy folder --set policy.remote.urls=http://127.0.0.1:8000`,
	}
	runDir := cmd.Flags().String("run-dir", "", "measure the newest checkpoint of the run in this `directory`")
	asJSON := cmd.Flags().Bool("json", false, "write the whole report as JSON")
	save := cmd.Flags().String("save", "", "keep the episodes in this `file`, for \"forager rollouts\"")
	resolve := settingFlags(cmd,
		shortcut{"policy", "policy.path", "measure the policy in this `folder` or .gguf file"},
		shortcut{"tasks", "data.tasks", "`file` of questions"},
		shortcut{"corpus", "data.corpus", "`file` of passages"},
		shortcut{"split", "eval.split", "train, dev or test `split`"},
		shortcut{"limit", "eval.limit", "at most this `number` of questions"},
		shortcut{"temperature", "eval.temperature", "sampling `temperature`, 0 for greedy"},
	)
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *runDir != "" && cmd.Flags().Changed("policy") {
			return usageError{errors.New("--run-dir and --policy both name a policy; give one")}
		}
		cfg, err := resolve(runConfig(*runDir))
		if err != nil {
			return err
		}
		o := node.EvaluateOptions{}
		if *runDir != "" {
			if o.Policy, err = node.LatestPolicy(*runDir); err != nil {
				return err
			}
		}
		if cmd.Flags().Changed("tasks") {
			if o.Tasks, err = evalTasks(cfg.Config, cmd.Flags().Changed("split")); err != nil {
				return err
			}
		}
		p := newProgress(a.stderr) // stdout is for the report
		defer p.close()
		ctx, interrupt := watch(cmd.Context(), a.signals(), nil, a.exit)
		defer interrupt.close()
		o.Logger, o.Phase = logger(p.above(a.stderr), level()), p.phase
		var kept episodes
		if *save != "" {
			o.Rollout = kept.add
		}
		report, err := node.Evaluate(ctx, cfg.Config, o)
		if err := interrupt.result(err); err != nil {
			return err
		}
		p.close()
		if *save != "" {
			if err := batch.WriteFile(*save, kept.groups); err != nil {
				return err
			}
		}
		if *asJSON {
			out := json.NewEncoder(a.stdout)
			out.SetIndent("", "  ")
			return out.Encode(report)
		}
		return report.WriteText(a.stdout)
	}
	return cmd
}

// evalTasks reads the questions of --tasks: those of the split if one was asked
// for, else all.
func evalTasks(cfg node.Config, bySplit bool) ([]forager.Task, error) {
	split := forager.Split(cfg.Eval.Split)
	tasks, err := node.ReadTasks(cfg.Data.Tasks, split)
	if err != nil {
		return nil, err
	}
	if bySplit {
		tasks = slices.DeleteFunc(tasks, func(t forager.Task) bool { return t.Split != split })
		if len(tasks) == 0 {
			return nil, forager.WithHint(fmt.Errorf("%s has no questions of split %s", cfg.Data.Tasks, split), "leave out --split to take all")
		}
	}
	return tasks, nil
}

// episodes collects evaluation rollouts as groups of one.
type episodes struct {
	groups []forager.Group
}

func (e *episodes) add(_ forager.Task, r forager.Rollout) {
	r.Run, r.Group, r.Sample = "eval", uint64(len(e.groups)), 0
	r.ID = forager.RolloutID(r.Run, r.Group, r.Sample)
	e.groups = append(e.groups, forager.Group{
		Credit:   forager.Credit{Run: r.Run, Index: r.Group, TaskID: r.TaskID, GroupSize: 1},
		Rollouts: []forager.Rollout{r},
	})
}
