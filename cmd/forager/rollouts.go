package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/node"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/policy/tokenizer"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rundir"
	"github.com/forager-rl/forager/search/worldfacts"
)

func (a *app) rollouts() *cobra.Command {
	cmd := group("rollouts", "List and show episodes")
	cmd.AddCommand(a.rolloutsList(), a.rolloutsShow())
	return cmd
}

// origin is where rollouts and what belongs to them are read from.
type origin struct {
	runDir, file, policy string
}

func (o *origin) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.runDir, "run-dir", "", "the episodes of the run in this `directory`")
	cmd.Flags().StringVar(&o.file, "file", "", "the episodes in this Arrow `file`")
}

func (o *origin) check() error {
	if (o.runDir == "") == (o.file == "") {
		return usageError{errors.New("name one source of episodes: --run-dir or --file")}
	}
	return nil
}

// files lists the rollout files, oldest first.
func (o *origin) files() ([]string, error) {
	if o.file != "" {
		return []string{o.file}, nil
	}
	dir, err := rundir.Open(o.runDir)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir.RolloutsPath(), "*.arrow"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no episodes in %s yet: they are written after each learner step", o.runDir)
	}
	slices.Sort(files)
	return files, err
}

// each calls use for every rollout in the files, in order, until
// it answers false.
func each(files []string, use func(index int, r *forager.Rollout) bool) error {
	index := 0
	for _, file := range files {
		groups, err := batch.ReadFile(file)
		if err != nil {
			return err
		}
		for _, g := range groups {
			for i := range g.Rollouts {
				r := &g.Rollouts[i]
				if !use(index, r) {
					return nil
				}
				index++
			}
		}
	}
	return nil
}

// tokenizer finds the tokenizer of the episodes: that of --policy, of the run's
// policy, or the built-in one.
func (o *origin) tokenizer() (*tokenizer.Tokenizer, error) {
	folder := o.policy
	if folder == "" && o.runDir != "" {
		folder = filepath.Join(o.runDir, "policy")
		if _, err := os.Stat(filepath.Join(folder, "tokenizer.json")); err != nil {
			if folder, err = node.LatestPolicy(o.runDir); err != nil {
				return nil, err
			}
		}
	}
	if folder == "" {
		_, t, err := builtin.Load()
		return t, err
	}
	return node.LoadTokenizer(folder)
}

// settings are those of the run, or the defaults.
func (o *origin) settings() (config, error) {
	var s sources
	if o.runDir != "" {
		s.files = []string{runConfig(o.runDir)}
	}
	return s.load()
}

// questions gives the tasks of the episodes by id, as far as they are known.
func questions(cfg node.Config) map[string]forager.Task {
	var all []forager.Task
	if cfg.Data.Tasks == "" {
		all, _, _ = worldfacts.Build()
	}
	for _, file := range []string{cfg.Data.Tasks, cfg.Data.EvalTasks} {
		if file != "" {
			tasks, _ := node.ReadTasks(file, forager.Train) // a file that has moved costs hops and question, no more
			all = append(all, tasks...)
		}
	}
	byID := make(map[string]forager.Task, len(all))
	for _, t := range all {
		byID[t.ID] = t
	}
	return byID
}

func (a *app) rolloutsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "One line for each episode", Args: noArgs,
		Example: "  forager rollouts list --run-dir runs/ID --last 20",
	}
	var from origin
	from.flags(cmd)
	last := cmd.Flags().Int("last", 0, "only the last `number` of episodes")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := from.check(); err != nil {
			return err
		}
		cfg, err := from.settings()
		if err != nil {
			return err
		}
		recipe, err := reward.NewRecipe(cfg.Reward)
		if err != nil {
			return err
		}
		files, err := from.files()
		if err != nil {
			return err
		}
		tasks := questions(cfg.Config)
		var lines []string
		err = each(files, func(index int, r *forager.Rollout) bool {
			lines = append(lines, listLine(index, r, tasks[r.TaskID].Hops, recipe))
			if *last > 0 && len(lines) > *last {
				lines = slices.Delete(lines, 0, len(lines)-*last)
			}
			return true
		})
		if err != nil {
			return err
		}
		return writeList(a.stdout, lines)
	}
	return cmd
}

func writeList(w io.Writer, lines []string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "index\tid\ttask\thops\tem\tf1\tsearches\tfinish\tversions\treward")
	for _, line := range lines {
		fmt.Fprintln(table, line)
	}
	return table.Flush()
}

func listLine(index int, r *forager.Rollout, hops int, recipe *reward.Recipe) string {
	hopText := "-"
	if hops > 0 {
		hopText = fmt.Sprint(hops)
	}
	// A version is published after every step: nearly the step that it was learned from in.
	combined := recipe.Combine(r, uint64(r.OldestVersion()))
	rewardText := fmt.Sprintf("%.3f", combined.Total)
	if len(combined.Missing) > 0 {
		rewardText += " (without " + strings.Join(combined.Missing, ", ") + ")"
	}
	return fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s", index, r.ID, visible(r.TaskID), hopText,
		known(r.Rewards, reward.SourceEM), known(r.Rewards, reward.SourceF1), r.Searches(), r.Finish, versions(r), rewardText)
}

// known writes a reward, or - where the source is unknown.
func known(rewards map[string]float64, source string) string {
	if x, ok := rewards[source]; ok {
		return fmt.Sprintf("%.2f", x)
	}
	return "-"
}

// versions writes the policy versions that sampled a rollout: v3, or v3-v5.
func versions(r *forager.Rollout) string {
	if len(r.Versions) == 0 {
		return "-"
	}
	oldest, newest := r.OldestVersion(), forager.Version(0)
	for _, v := range r.Versions {
		newest = max(newest, v.Version)
	}
	if oldest == newest {
		return fmt.Sprintf("v%d", oldest)
	}
	return fmt.Sprintf("v%d-v%d", oldest, newest)
}

func (a *app) rolloutsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "A whole episode with its tags, rewards and labels", Args: noArgs,
		Long: `Show a whole episode: the prompt, every turn with what came back, rewards and
labels. Without --id or --index it is the newest one. Text from outside is dimmed:
it is never learned from. With --tokens the tokens in the loss stand in brackets.`,
		Example: `  forager rollouts show --run-dir runs/ID
  forager rollouts show --run-dir runs/ID --index 12 --tokens --logprobs`,
	}
	var from origin
	from.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&from.policy, "policy", "", "take the tokenizer from this `folder`")
	id := flags.String("id", "", "the episode with this `id`")
	index := flags.Int("index", -1, "the episode with this `number` in the list")
	colour := flags.String("color", "auto", "`when` to use colour: auto, always or never")
	var view view
	flags.BoolVar(&view.tokens, "tokens", false, "mark every token that is in the loss")
	flags.BoolVar(&view.logprobs, "logprobs", false, "add the log-probabilities of those tokens")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := from.check(); err != nil {
			return err
		}
		palette, err := newPalette(*colour, isTerminal(a.stdout))
		if err != nil {
			return err
		}
		r, err := from.pick(*id, *index)
		if err != nil {
			return err
		}
		cfg, err := from.settings()
		if err != nil {
			return err
		}
		tok, err := from.tokenizer()
		if err != nil {
			return err
		}
		view.palette, view.tokenizer = palette, tok
		if t, ok := questions(cfg.Config)[r.TaskID]; ok {
			view.task = &t
		}
		return view.write(a.stdout, r)
	}
	return cmd
}

// pick finds an episode by id or index; with neither it is the last one.
func (o *origin) pick(id string, index int) (*forager.Rollout, error) {
	files, err := o.files()
	if err != nil {
		return nil, err
	}
	newest := id == "" && index < 0
	if newest {
		files = files[len(files)-1:]
	}
	var found *forager.Rollout
	count := 0
	err = each(files, func(i int, r *forager.Rollout) bool {
		count++
		if newest || r.ID == id || (id == "" && i == index) {
			found = r
		}
		return newest || found == nil
	})
	switch {
	case err != nil:
		return nil, err
	case found == nil && id != "":
		return nil, forager.WithHint(fmt.Errorf("episode %q: %w", id, forager.ErrNotFound), `"forager rollouts list" shows the ids`)
	case found == nil:
		return nil, fmt.Errorf("episode %d: %w; there are %d, counted from 0", index, forager.ErrNotFound, count)
	}
	return found, nil
}
