package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/cmd/forager/internal/settings"
	"github.com/forager-rl/forager/eval"
	"github.com/forager-rl/forager/node"
)

const draining = "draining: finishing the step and writing a checkpoint; press Ctrl-C again to stop at once"

func (a *app) train() *cobra.Command {
	cmd := &cobra.Command{
		Use: "train", Short: "Train a search agent, every role in this process", Args: noArgs,
		Long: `Train a search agent, every role in this process.

Without flags the built-in policy learns the built-in questions about the world.
Settings come, in rising order of precedence, from the defaults, --config,
FORAGER_ environment variables and flags. A resumed run starts from the settings
it was begun with. Ctrl-C finishes the step and writes a checkpoint; a second
one stops at once, and the run can still be resumed.`,
		Example: `  forager train --time-limit 10m
  forager train --tasks train.jsonl --corpus corpus.jsonl --set learner.group_size=16
  forager train --resume runs/ID`,
	}
	resume := cmd.Flags().String("resume", "", "continue the run in this `directory`")
	resolve := settingFlags(cmd,
		shortcut{"seed", "run.seed", "`number` that fixes every random choice"},
		shortcut{"steps", "learner.steps", "learner `steps` of the run"},
		shortcut{"time-limit", "learner.time_limit", "end after this `duration` of training, such as 10m"},
		shortcut{"tasks", "data.tasks", "`file` of questions"},
		shortcut{"eval-tasks", "data.eval_tasks", "`file` of held-out questions"},
		shortcut{"corpus", "data.corpus", "`file` of passages"},
		shortcut{"policy", "policy.path", "`folder` or .gguf file of the policy to start from"},
		shortcut{"actors", "actor.count", "`number` of actors"},
	)
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := resolve(runConfig(*resume))
		if err != nil {
			return err
		}
		p := newProgress(a.stdout)
		defer p.close()
		ctx, interrupt := watch(cmd.Context(), a.signals(), func() { p.notice(draining) }, a.exit)
		defer interrupt.close()
		result, err := node.Train(ctx, cfg.Config, node.TrainOptions{
			Resume: *resume,
			ConfigYAML: func(resolved node.Config) ([]byte, error) {
				return settings.YAML(&resolved), nil
			},
			Logger:   logger(p.above(a.stderr), level()),
			Observer: p.observer(),
			Stop:     interrupt.stop,
		})
		if err := interrupt.result(err); err != nil {
			if errors.Is(err, errInterrupted) && result.Dir != "" {
				err = forager.WithHint(err, "go on with: forager train --resume "+result.Dir)
			}
			return err
		}
		p.close()
		return writeTrained(a.stdout, result)
	}
	return cmd
}

// writeTrained says what a training run came to and what to do next.
func writeTrained(w io.Writer, r node.TrainResult) error {
	if !r.Finished {
		_, err := fmt.Fprintf(w, "\nstopped before the end; go on with\n  forager train --resume %s\n", r.Dir)
		return err
	}
	if r.Before != nil && r.After != nil {
		if err := writeBeforeAfter(w, *r.Before, *r.After); err != nil {
			return err
		}
	}
	if r.Report != "" {
		fmt.Fprintf(w, "\nreport: %s\n", r.Report)
	}
	_, err := fmt.Fprintf(w, "\nnext:\n  forager eval --run-dir %s --split dev\n  forager rollouts show --run-dir %s\n", r.Dir, filepath.Clean(r.Dir))
	return err
}

// writeBeforeAfter shows exact match by number of hops.
func writeBeforeAfter(w io.Writer, before, after eval.Report) error {
	fmt.Fprintf(w, "\nexact match on %d held-out questions, with %g %% intervals\n", after.Questions, 100*after.Confidence)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "\tbefore\tafter")
	row := func(name string, b, a eval.Group) {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, emInterval(b), emInterval(a))
	}
	for _, a := range after.ByHops {
		for _, b := range before.ByHops {
			if a.Name == b.Name {
				row(a.Name+hopWord(a.Name), b, a)
			}
		}
	}
	row("all", before.Overall, after.Overall)
	return table.Flush()
}

func hopWord(name string) string {
	if name == "1" {
		return " hop"
	}
	return " hops"
}

func emInterval(g eval.Group) string {
	e, known := g.Metrics[eval.EM]
	if !known {
		return "-"
	}
	return fmt.Sprintf("%.3f [%.3f, %.3f]", e.Mean, e.Low, e.High)
}
