package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/audit"
	"github.com/forager-rl/forager/rewardsrv/judge"
	"github.com/forager-rl/forager/rewardsrv/rubric"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/worldfacts"
)

// auditFlags says what is measured against what.
type auditFlags struct {
	gold, runDir, nats, judgeURL, save string
	rubrics                            []string
	turns, passages                    int
	threshold                          float64
	asJSON                             bool
}

func (a *app) labelsAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Compare a judge with gold labels", Args: noArgs,
		Long: `Compare a judge with gold labels: agreement, Cohen's kappa, AUC, a table of
confusions, and what it cost.

The judge is asked now, about turns of the file that --gold names, or about turns
made of questions by searching the corpus, whose gold label is whether a gold
passage was found. With --run-dir nobody is asked: the labels of that run are
compared, with --gold or with whether the turn found a gold passage. docs/labels.md
has the form of gold files and the formulas.`,
		Example: `  forager labels audit --judge-url http://127.0.0.1:8000/v1 --model MODEL
  forager labels audit -c judge.yaml --tasks dev.jsonl --corpus corpus.jsonl --turns 200
  forager labels audit --run-dir runs/ID`,
	}
	var f auditFlags
	flags := cmd.Flags()
	flags.StringVar(&f.gold, "gold", "", "turns with gold labels, a JSONL `file`")
	flags.IntVar(&f.turns, "turns", 200, "make this `number` of turns when there is no --gold")
	flags.IntVar(&f.passages, "passages", 3, "`number` of passages in a turn that is made")
	flags.StringVar(&f.runDir, "run-dir", "", "compare the labels of the run in this `directory`")
	flags.StringVar(&f.nats, "nats", "", "`URL` of the message bus of --run-dir, when the run has none of its own")
	flags.StringVar(&f.judgeURL, "judge-url", "", "ask the judge at this OpenAI-compatible `URL`, up to and with its version")
	flags.StringArrayVar(&f.rubrics, "rubric", nil, "built-in rubric or YAML `file`; may be repeated (setting judge.rubrics)")
	flags.Float64Var(&f.threshold, "threshold", 0.5, "labels from this `value` on count as positive")
	flags.StringVar(&f.save, "save", "", "keep turns, labels and raw answers in this JSONL `file`")
	flags.BoolVar(&f.asJSON, "json", false, "write the reports as JSON")
	resolve := settingFlags(cmd,
		shortcut{"model", "judge.llm.model", "`name` of the judge's model"},
		shortcut{"at-once", "judge.max_in_flight", "ask about at most this `number` of turns at one time"},
		shortcut{"timeout", "judge.llm.timeout", "bound one request by this `duration`"},
		shortcut{"tasks", "data.tasks", "`file` of questions"},
		shortcut{"corpus", "data.corpus", "`file` of passages"},
		shortcut{"seed", "run.seed", "`number` that fixes which turns are made"},
	)
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		base := ""
		if f.runDir != "" {
			base = runConfig(f.runDir)
		}
		cfg, err := resolve(base)
		if err != nil {
			return err
		}
		p := newProgress(a.stderr) // stdout is for the report
		defer p.close()
		ctx, interrupt := watch(cmd.Context(), a.signals(), nil, a.exit)
		defer interrupt.close()
		log := logger(p.above(a.stderr), level())
		var reports []audit.Report
		if f.runDir != "" {
			reports, err = auditRun(ctx, cfg, f, log)
		} else {
			f.configure(&cfg, cmd.Flags().Changed("model"))
			reports, err = auditJudges(ctx, cfg, f, log, p)
		}
		err = interrupt.result(err)
		p.close()
		return errors.Join(err, writeReports(a.stdout, reports, f.asJSON)) // also those of an audit that was cut short
	}
	return cmd
}

func writeReports(w io.Writer, reports []audit.Report, asJSON bool) error {
	if asJSON && len(reports) > 0 {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(reports)
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := r.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}

func (f *auditFlags) check() error {
	switch {
	case f.runDir != "" && f.judgeURL != "":
		return usageError{errors.New("--run-dir compares labels that are there, --judge-url asks for new ones; give one")}
	case f.runDir == "" && f.nats != "":
		return usageError{errors.New("--nats goes with --run-dir")}
	case f.turns < 1 || f.passages < 1:
		return usageError{errors.New("--turns and --passages want 1 or more")}
	case f.save != "" && (f.runDir != "" || len(f.rubrics) > 1):
		return usageError{errors.New("--save keeps what one judge is asked by one rubric")}
	}
	return nil
}

// configure lets the flags have their say in the settings of the judge.
func (f *auditFlags) configure(cfg *config, model bool) {
	if f.judgeURL != "" {
		cfg.Judge.LLM.Endpoints = []judge.EndpointConfig{{BaseURL: f.judgeURL}}
	}
	if f.judgeURL != "" || model {
		cfg.Judge.Judge = rewardsrv.JudgeLLM
	}
	if len(f.rubrics) > 0 {
		cfg.Judge.Rubrics = f.rubrics
	}
}

// auditJudges asks the judges that the settings name, one after another.
func auditJudges(ctx context.Context, cfg config, f auditFlags, log *slog.Logger, p *progress) ([]audit.Report, error) {
	if err := cfg.Judge.Validate(); err != nil {
		return nil, err
	}
	if cfg.Judge.Judge == rewardsrv.JudgeNone {
		return nil, forager.WithHint(errors.New("the settings name no judge"), "name one with --judge-url and --model, or with --set judge.judge=rule")
	}
	judges, err := rewardsrv.NewJudges(cfg.Judge, rewardsrv.Deps{Logger: log, Now: time.Now, Random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))})
	if err != nil {
		return nil, err
	}
	turns := map[rubric.Unit][]audit.Turn{}
	var reports []audit.Report
	for _, j := range judges {
		grader := j.Current()
		unit := grader.Unit()
		if turns[unit] == nil {
			if turns[unit], err = auditTurns(ctx, cfg, f, unit, p); err != nil {
				return nil, err
			}
		}
		phase := func(done int) { p.phase("ask "+grader.Judge()+" for "+j.Source(), done, len(turns[unit])) }
		phase(0)
		result, err := audit.Ask(ctx, turns[unit], asked(grader), cfg.Judge.MaxInFlight, time.Now, phase)
		if len(result.Outcomes) > 0 {
			reports = append(reports, audit.NewReport(grader.Judge()+" for "+j.Source(), grader.Rubric(), result, f.threshold))
			if f.save != "" {
				err = errors.Join(err, audit.WriteOutcomes(f.save, result.Outcomes))
			}
		}
		if err != nil {
			return reports, err
		}
	}
	return reports, nil
}

// asked puts an item to a judge of the reward server.
func asked(g rewardsrv.Grader) audit.Judge {
	return func(ctx context.Context, item rubric.Item) (audit.Label, error) {
		v, err := g.Label(ctx, item)
		if errors.Is(err, rewardsrv.ErrUnusable) {
			err = fmt.Errorf("%w: %w", audit.ErrUnusable, err)
		}
		return audit.Label{Value: v.Value, Rationale: v.Rationale, Judgement: v.Judgement}, err
	}
}

// auditTurns reads the gold file, or makes turns.
func auditTurns(ctx context.Context, cfg config, f auditFlags, unit rubric.Unit, p *progress) ([]audit.Turn, error) {
	if f.gold != "" {
		return audit.ReadGold(f.gold, questions(cfg.Config))
	}
	if unit != rubric.Turn && unit != rubric.Pair {
		return nil, forager.WithHint(fmt.Errorf("turns of unit %s cannot be made by searching", unit), "give labelled ones with --gold")
	}
	tasks, corpus, err := auditData(cfg.Data)
	if err != nil {
		return nil, err
	}
	p.phase("index", 0, 1)
	index, err := search.NewBM25(ctx, corpus, cfg.Search.BM25)
	if err != nil {
		return nil, err
	}
	p.phase("index", 1, 1)
	turns, err := audit.Make(ctx, tasks, index, audit.MakeOptions{Turns: f.turns, Passages: f.passages, Pairs: unit == rubric.Pair},
		rand.New(rand.NewPCG(cfg.Run.Seed, 0)))
	return turns, errors.Join(err, index.Close())
}

// auditData is the questions and passages that turns are made of: the built-in
// ones that nobody is trained on when none are named.
func auditData(data node.DataConfig) (tasks []forager.Task, corpus []forager.Passage, err error) {
	if data.Tasks == "" {
		all, corpus, err := worldfacts.Build()
		for _, t := range all {
			if t.Split == forager.Dev {
				tasks = append(tasks, t)
			}
		}
		return tasks, corpus, err
	}
	if tasks, err = node.ReadTasks(data.Tasks, forager.Dev); err != nil {
		return nil, nil, err
	}
	corpus, err = search.ReadCorpus(data.Corpus)
	return tasks, corpus, err
}
