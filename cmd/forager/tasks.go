package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/search"
	"github.com/forager-rl/forager/search/worldfacts"
)

func (a *app) tasks() *cobra.Command {
	cmd := group("tasks", "Write the built-in questions, check your own")
	cmd.AddCommand(a.tasksBuild(), a.tasksCheck())
	return cmd
}

func (a *app) tasksBuild() *cobra.Command {
	cmd := &cobra.Command{
		Use: "build", Short: "Write the built-in questions and passages as JSONL", Args: noArgs,
		Example: "  forager tasks build --out worldfacts",
	}
	out := cmd.Flags().String("out", "", "write tasks.jsonl and corpus.jsonl into this `folder`")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *out == "" {
			return usageError{errors.New("no folder given; name one with --out")}
		}
		tasks, corpus, err := worldfacts.Build()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(*out, 0o755); err != nil {
			return err
		}
		tasksFile, corpusFile := filepath.Join(*out, "tasks.jsonl"), filepath.Join(*out, "corpus.jsonl")
		if err := search.WriteTasks(tasksFile, tasks); err != nil {
			return err
		}
		if err := search.WriteCorpus(corpusFile, corpus); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s: %s questions\n%s: %s passages\n\n", tasksFile, thousands(len(tasks)), corpusFile, thousands(len(corpus)))
		return writeCounts(a.stdout, tasks)
	}
	return cmd
}

func (a *app) tasksCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Check files of questions and passages", Args: noArgs,
		Example: "  forager tasks check --tasks train.jsonl --corpus corpus.jsonl",
	}
	tasksFile := cmd.Flags().String("tasks", "", "`file` of questions, JSONL or Parquet")
	corpusFile := cmd.Flags().String("corpus", "", "`file` of passages, or a BEIR folder")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *tasksFile == "" && *corpusFile == "" {
			return usageError{errors.New("nothing to check; name a file with --tasks, --corpus or both")}
		}
		var tasks []forager.Task
		var corpus []forager.Passage
		var err error
		if *tasksFile != "" {
			if tasks, err = node.ReadTasks(*tasksFile, forager.Train); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s: %s questions\n", *tasksFile, thousands(len(tasks)))
		}
		if *corpusFile != "" {
			if corpus, err = search.ReadCorpus(*corpusFile); err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "%s: %s passages\n", *corpusFile, thousands(len(corpus)))
		}
		if tasks == nil {
			return nil
		}
		if corpus != nil {
			fmt.Fprintln(a.stdout, goldText(tasks, corpus))
		}
		fmt.Fprintln(a.stdout)
		return writeCounts(a.stdout, tasks)
	}
	return cmd
}

// goldText tells how much of the evidence that tasks name is in the corpus, by
// id or, as ids differ between dumps, by title.
func goldText(tasks []forager.Task, corpus []forager.Passage) string {
	ids, titles := make(map[string]bool), make(map[string]bool)
	for _, p := range corpus {
		ids[p.ID], titles[p.Title] = true, true
	}
	count := func(names func(forager.Task) []string, there map[string]bool) (found, all int) {
		for _, t := range tasks {
			for _, name := range names(t) {
				all++
				if there[name] {
					found++
				}
			}
		}
		return found, all
	}
	what := "gold passages"
	found, all := count(func(t forager.Task) []string { return t.Gold }, ids)
	if all == 0 {
		what = "gold titles"
		found, all = count(func(t forager.Task) []string { return t.GoldTitles }, titles)
	}
	if all == 0 {
		return "the questions name no gold passages: evidence recall will be unknown"
	}
	return fmt.Sprintf("%s of %s %s are in the corpus", thousands(found), thousands(all), what)
}

// writeCounts shows the number of questions by data set, split and hops.
func writeCounts(w io.Writer, tasks []forager.Task) error {
	type row struct {
		dataset string
		split   forager.Split
	}
	counts := make(map[row]map[int]int)
	var rows []row
	var hops []int
	for _, t := range tasks {
		r := row{t.Dataset, t.Split}
		if counts[r] == nil {
			counts[r] = make(map[int]int)
			rows = append(rows, r)
		}
		counts[r][t.Hops]++
		if !slices.Contains(hops, t.Hops) {
			hops = append(hops, t.Hops)
		}
	}
	slices.Sort(hops)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{"data set", "split"}
	for _, h := range hops {
		name := strconv.Itoa(h)
		if h == 0 {
			head = append(head, "unknown hops")
			continue
		}
		head = append(head, name+hopWord(name))
	}
	fmt.Fprintln(table, strings.Join(append(head, "all"), "\t")+"\t")
	for _, r := range rows {
		cells, all := []string{r.dataset, string(r.split)}, 0
		for _, h := range hops {
			cells = append(cells, thousands(counts[r][h]))
			all += counts[r][h]
		}
		fmt.Fprintln(table, strings.Join(append(cells, thousands(all)), "\t")+"\t")
	}
	return table.Flush()
}
