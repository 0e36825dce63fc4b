package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
)

func (a *app) labelsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "One line for each label, newest first", Args: noArgs,
		Long: `List the labels of a run, newest first, with the number of turns that share each.
A run that goes on is read from its message bus; one that has ended from its
directory. Neither notices.`,
		Example: `  forager labels list --run-dir runs/ID
  forager labels list --run-dir runs/ID --failed --limit 100`,
	}
	var from labelOrigin
	var filter labelFilter
	from.flags(cmd)
	filter.flags(cmd)
	limit := cmd.Flags().Int("limit", 30, "at most this `number` of labels, 0 for all")
	asJSON := cmd.Flags().Bool("json", false, "write the labels as JSON, with their turns")
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(from.check(), filter.check()); err != nil {
			return err
		}
		rows, err := from.read(cmd.Context(), logger(a.stderr, level()))
		if err != nil {
			return err
		}
		labels := slices.DeleteFunc(gather(rows), func(l *label) bool { return !filter.wants(l) })
		slices.Reverse(labels)
		slices.SortStableFunc(labels, func(a, b *label) int { return b.Time.Compare(a.Time) })
		found := len(labels)
		if *limit > 0 {
			labels = labels[:min(*limit, found)]
		}
		if *asJSON {
			return writeLabelsJSON(a.stdout, labels)
		}
		if err := writeLabels(a.stdout, labels); err != nil || len(labels) == found {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "\n%s of %s labels; see --limit\n", thousands(len(labels)), thousands(found))
		return err
	}
	return cmd
}

// writeLabels writes a table.
func writeLabels(w io.Writer, labels []*label) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "time\tkey\tsource\tvalue\tjudge\ttask\tturns\tquery")
	for _, l := range labels {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.Time.UTC().Format(time.DateTime), cmp.Or(short(l.Key, 12), "-"),
			visible(l.Source), valueText(l.Value), visible(l.Judge), cmp.Or(short(l.Judgement.TaskID, 24), "-"), len(l.turns), cmp.Or(short(l.Judgement.Query, 60), "-"))
	}
	return table.Flush()
}

// valueText is a label's value; there being none differs from 0.
func valueText(value *float64) string {
	if value == nil {
		return "none"
	}
	return fmt.Sprintf("%.3g", *value)
}

// short is text on one line, cut to n characters.
func short(text string, n int) string {
	text = visible(strings.Join(strings.Fields(text), " "))
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n])
	}
	return text
}

// writeLabelsJSON writes what is known of labels, value null where there is none.
func writeLabelsJSON(w io.Writer, labels []*label) error {
	type row struct {
		forager.Annotation
		Value *float64 `json:"value"`
		Turns []turn   `json:"turns"`
	}
	list := make([]row, len(labels))
	for i, l := range labels {
		list[i] = row{l.Annotation, l.Value, l.turns}
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(list)
}

func (a *app) labelsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show KEY|ROLLOUT", Short: "All that is known of a label, or of those of an episode",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%s takes one label key or rollout id; see %q", cmd.CommandPath(), cmd.CommandPath()+" --help")}
			}
			return nil
		},
		Long: `Show a label: who judged what by which rubric, the raw answer, what it cost, and
which turns got it. A key may be cut short. An episode's id shows the labels of
its turns. The raw answer may name the right answer to the question.`,
		Example: `  forager labels show 3f9c20ab --run-dir runs/ID
  forager labels show ID-00000012-003 --run-dir runs/ID --json`,
	}
	var from labelOrigin
	from.flags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "write the labels as JSON, with their turns")
	level := verbosity(cmd, slog.LevelWarn)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := from.check(); err != nil {
			return err
		}
		rows, err := from.read(cmd.Context(), logger(a.stderr, level()))
		if err != nil {
			return err
		}
		labels, err := pickLabels(gather(rows), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return writeLabelsJSON(a.stdout, labels)
		}
		out := bufio.NewWriter(a.stdout) // keeps the first error for Flush
		for i, l := range labels {
			if i > 0 {
				fmt.Fprintln(out)
			}
			writeLabel(out, l)
		}
		return out.Flush()
	}
	return cmd
}

// pickLabels finds the labels of a rollout, in the order of its turns, or those
// whose key begins with a text: one key, of one source or several.
func pickLabels(labels []*label, what string) ([]*label, error) {
	type found struct {
		label *label
		turn  int
	}
	var ofRollout []found
	var byKey []*label
	for _, l := range labels {
		for _, t := range l.turns {
			if t.RolloutID == what {
				ofRollout = append(ofRollout, found{l, t.Turn})
			}
		}
		if what != "" && strings.HasPrefix(l.Key, what) {
			byKey = append(byKey, l)
		}
	}
	slices.SortStableFunc(ofRollout, func(a, b found) int { return cmp.Compare(a.turn, b.turn) })
	var list []*label
	for _, f := range ofRollout {
		if !slices.Contains(list, f.label) {
			list = append(list, f.label)
		}
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, l := range byKey {
		if l.Key != byKey[0].Key {
			return nil, usageError{fmt.Errorf("key %q begins several labels, %s and %s among them; give more of it", what, byKey[0].Key, l.Key)}
		}
	}
	if len(byKey) == 0 {
		return nil, forager.WithHint(fmt.Errorf("label or rollout %q: %w", what, forager.ErrNotFound), `"forager labels list" shows the keys, "forager rollouts list" the rollouts`)
	}
	return byKey, nil
}

// shownTurns bounds the turns that are listed with a label.
const shownTurns = 20

// writeLabel shows one label. What is not known is left out.
func writeLabel(w io.Writer, l *label) {
	j := l.Judgement
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-13s%s\n", name, visible(text))
		}
	}
	block := func(name, text string) {
		if strings.TrimSpace(text) == "" {
			return
		}
		fmt.Fprintf(w, "  %s\n", name)
		for part := range strings.Lines(strings.Trim(text, "\n")) {
			fmt.Fprintf(w, "    %s\n", visible(strings.TrimRight(part, "\n")))
		}
	}
	fmt.Fprintf(w, "label %s\n", cmp.Or(l.Key, "without a key"))
	line("value", valueText(l.Value))
	line("source", l.Source)
	line("judge", l.Judge)
	line("model", j.Model)
	line("endpoint", j.Endpoint)
	line("rubric", l.Rubric)
	line("prompt", j.PromptDigest)
	line("time", l.Time.UTC().Format(time.RFC3339Nano))
	line("latency", l.Latency.String())
	if j.PromptTokens+j.CompletionTokens > 0 {
		line("tokens", fmt.Sprintf("%s prompt, %s answer", thousands(j.PromptTokens), thousands(j.CompletionTokens)))
	}
	line("task", j.TaskID)
	line("question", short(j.Question, 1000))
	line("query", short(j.Query, 1000))
	block("observation", j.Observation)
	line("other query", short(j.OtherQuery, 1000))
	block("other observation", j.OtherObservation)
	line("rationale", l.Rationale)
	block("raw answer", j.Answer)
	if j == (forager.Judgement{}) {
		line("judgement", "not kept with this label")
	}
	fmt.Fprintf(w, "  turns        %s\n", thousands(len(l.turns)))
	for i, t := range l.turns {
		if i == shownTurns {
			fmt.Fprintf(w, "    and %s more; --json gives all\n", thousands(len(l.turns)-i))
			break
		}
		where := fmt.Sprintf("turn %d", t.Turn+1)
		if t.Turn == forager.WholeRollout {
			where = "whole rollout"
		}
		fmt.Fprintf(w, "    %s  %s\n", visible(t.RolloutID), where)
	}
}
