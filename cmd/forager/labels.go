package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/node"
)

func (a *app) labels() *cobra.Command {
	cmd := group("labels", "Look at labels, export them, measure judges")
	cmd.AddCommand(a.labelsList(), a.labelsShow(), a.labelsExport(), a.labelsAudit(), a.labelsRubric())
	return cmd
}

// labelOrigin is where labels are read from.
type labelOrigin struct{ runDir, file, nats string }

func (o *labelOrigin) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.runDir, "run-dir", "", "the labels of the run in this `directory`, running or ended")
	cmd.Flags().StringVar(&o.file, "file", "", "the labels in this Arrow `file`, as exported")
	cmd.Flags().StringVar(&o.nats, "nats", "", "`URL` of the message bus, when the run has none of its own")
}

func (o *labelOrigin) check() error {
	if (o.runDir == "") == (o.file == "") {
		return usageError{errors.New("name one source of labels: --run-dir or --file")}
	}
	if o.file != "" && o.nats != "" {
		return usageError{errors.New("--nats goes with --run-dir")}
	}
	return nil
}

// read gives every label, oldest first: one row for each turn that got one.
func (o *labelOrigin) read(ctx context.Context, log *slog.Logger) ([]forager.Annotation, error) {
	if o.file != "" {
		return batch.ReadAnnotations(o.file)
	}
	cfg, err := o.settings()
	if err != nil {
		return nil, err
	}
	var rows []forager.Annotation
	err = node.ReadLabels(ctx, cfg.Config, node.LabelsOptions{Dir: o.runDir, URL: o.nats, Logger: log}, func(row forager.Annotation) error {
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// settings are those of the run, or the defaults: the directories of single
// roles keep none.
func (o *labelOrigin) settings() (config, error) {
	var s sources
	if _, err := os.Stat(runConfig(o.runDir)); err == nil {
		s.files = []string{runConfig(o.runDir)}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return config{}, err
	}
	return s.load()
}

// labelFilter says which labels are wanted. Empty fields want all.
type labelFilter struct {
	source, judge, rubric, value, task string
	failed                             bool
	low, high                          float64 // of value
}

func (f *labelFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.source, "source", "", "only labels of this reward `source`")
	flags.StringVar(&f.judge, "judge", "", "only labels of judges with this `text` in their name")
	flags.StringVar(&f.rubric, "rubric", "", "only labels of the rubric `version` that begins like this")
	flags.StringVar(&f.value, "value", "", "only labels with this `value`, or in a range such as 0.5..1")
	flags.StringVar(&f.task, "task", "", "only labels of the question with this `id`")
	flags.BoolVar(&f.failed, "failed", false, "only turns for which the judge gave no usable label")
}

func (f *labelFilter) check() error {
	if f.value == "" {
		return nil
	}
	if f.failed {
		return usageError{errors.New("--failed and --value exclude each other: what failed has no value")}
	}
	low, high, ranged := strings.Cut(f.value, "..")
	if !ranged {
		high = low
	}
	var errLow, errHigh error
	f.low, errLow = strconv.ParseFloat(low, 64)
	f.high, errHigh = strconv.ParseFloat(high, 64)
	if errLow != nil || errHigh != nil || !(f.low <= f.high) {
		return usageError{fmt.Errorf("--value %s: want a number, or a range such as 0.5..1", f.value)}
	}
	return nil
}

// wants says whether a label passes.
func (f *labelFilter) wants(l *label) bool {
	switch {
	case f.source != "" && l.Source != f.source,
		!strings.Contains(l.Judge, f.judge),
		!strings.HasPrefix(strings.TrimPrefix(l.Rubric, "sha256:"), strings.TrimPrefix(f.rubric, "sha256:")),
		f.task != "" && l.Judgement.TaskID != f.task,
		f.failed && l.Value != nil,
		f.value != "" && (l.Value == nil || *l.Value < f.low || *l.Value > f.high):
		return false
	}
	return true
}

// label is what was judged once, and the turns that it went to.
type label struct {
	forager.Annotation        // the one that brought the judgement, else the first
	rows               []int  // its annotations, oldest first
	turns              []turn // those of the rows, each once, in order
}

// turn is one of a rollout.
type turn struct {
	RolloutID string `json:"rollout_id"`
	Turn      int    `json:"turn"` // index; forager.WholeRollout for the rollout itself
}

// gather joins annotations of equal source and key to labels, in the order in
// which they first came. One without a key is a label of its own.
func gather(rows []forager.Annotation) []*label {
	type identity struct{ source, key string }
	known := map[identity]*label{}
	var labels []*label
	for i, a := range rows {
		id := identity{a.Source, a.Key}
		l := known[id]
		switch {
		case l == nil || a.Key == "":
			l = &label{Annotation: a}
			known[id] = l
			labels = append(labels, l)
		case a.Judgement != (forager.Judgement{}), l.Value == nil && a.Value != nil:
			l.Annotation = a
		}
		l.rows = append(l.rows, i)
	}
	for _, l := range labels {
		for _, i := range l.rows {
			l.turns = append(l.turns, turn{rows[i].RolloutID, rows[i].Turn})
		}
		slices.SortFunc(l.turns, func(a, b turn) int {
			return cmp.Or(strings.Compare(a.RolloutID, b.RolloutID), cmp.Compare(a.Turn, b.Turn))
		})
		l.turns = slices.Compact(l.turns) // a batch may have been published twice
	}
	return labels
}

func (a *app) labelsExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Write labels to an Arrow, Parquet or JSONL file", Args: noArgs,
		Long: `Write the labels of a run to a file, oldest first: one row for each turn that has
one. What the judge was asked and answered stands in the row that paid for it;
rows with the same key share it. The file is written whole or not at all.`,
		Example: "  forager labels export --run-dir runs/ID --out labels.parquet",
	}
	var from labelOrigin
	var filter labelFilter
	from.flags(cmd)
	filter.flags(cmd)
	out := cmd.Flags().String("out", "", "write this `file`")
	format := cmd.Flags().String("format", "", "`form` of the file: arrow, parquet or jsonl (default: by its ending)")
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(from.check(), filter.check()); err != nil {
			return err
		}
		form, err := exportFormat(*out, *format)
		if err != nil {
			return err
		}
		rows, err := from.read(cmd.Context(), logger(a.stderr, level()))
		if err != nil {
			return err
		}
		var wanted []int
		for _, l := range gather(rows) {
			if filter.wants(l) {
				wanted = append(wanted, l.rows...)
			}
		}
		slices.Sort(wanted)
		kept := make([]forager.Annotation, len(wanted))
		for i, row := range wanted {
			kept[i] = rows[row]
		}
		if err := batch.WriteAnnotations(*out, form, kept); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s: %s labels\n", *out, thousands(len(kept)))
		return err
	}
	return cmd
}

// exportFormat is the form that was asked for, or that the name's ending says.
func exportFormat(out, format string) (batch.Format, error) {
	if out == "" {
		return "", usageError{errors.New("no file given; name one with --out")}
	}
	if format == "" {
		format = strings.TrimPrefix(strings.ToLower(filepath.Ext(out)), ".")
	}
	if f := batch.Format(format); slices.Contains(batch.Formats(), f) {
		return f, nil
	}
	return "", usageError{fmt.Errorf("form %q of file %s is unknown; give --format arrow, parquet or jsonl", format, out)}
}
