package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/forager-rl/forager/rundir"
)

// arm is one recipe under comparison.
type arm struct {
	name string
	set  []string
}

// study compares how many learner steps recipes take to a fixed exact match.
type study struct {
	runs
	seeds, steps, window int
	target               float64
	policy               string // that all runs start from
	tasks, corpus        string
	arms                 []arm
}

// starts gives the warm starts of the policies to begin with. All are shorter than
// the built-in one: the policy can follow chains and copy names, and its last stage
// has given it a bad habit.
func starts() map[string]string {
	const able = "[{max_hops: 1, tokens: 2000000}, {max_hops: 3, tokens: 2600000}, "
	return map[string]string{
		// It asks on and does not know what to ask: after the first search 19 of 20
		// go elsewhere. Of a thousand episodes none is right.
		"astray": able + "{max_hops: 3, astray: 0.95, tokens: 600000}]",
		// It knows what to ask and hardly ever asks on: after each search but the last
		// it answers with chance 0.96 (built-in: 0.65). One in a thousand is right.
		"stopping": able + "{max_hops: 3, stop_early: 0.96, tokens: 500000}]",
		"built-in": "",
	}
}

// learning compares outcome-only training with intrinsic reward on a task where
// right answers are rare at the start: three-hop questions about the world, asked
// of a policy with a bad habit. The judge is the rule. All recipes learn from as
// many rollouts a step.
func learning(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("learning", flag.ContinueOnError)
	s := &study{}
	flags.StringVar(&s.binary, "forager", "", "the `binary` to measure; default: built from this checkout")
	flags.StringVar(&s.out, "out", "", "`folder` of this measurement: runs, logs, curves; an interrupted one goes on there; default: runs/learning-START")
	flags.StringVar(&s.policy, "policy", "", "`folder` of the policy to start from; default: the warm start that -start names")
	flags.Var(&s.extra, "set", "further `setting` KEY=VALUE of every run; may be repeated")
	flags.IntVar(&s.seeds, "seeds", 3, "`seeds` of each recipe; the defaults take about an hour on 2 cores")
	flags.IntVar(&s.steps, "steps", 150, "learner `steps` of a run")
	flags.IntVar(&s.window, "window", 8, "`steps` over which exact match is averaged")
	flags.Float64Var(&s.target, "target", 0.3, "exact `match` to be reached on training questions")
	start := flags.String("start", "astray", "`name` of the warm start: astray, stopping or built-in")
	recipes := flags.String("recipes", "outcome,classification,ranking,retrieval,classification shuffled,retrieval shuffled",
		"`list` of what to compare; the ratios are to the first")
	coefficient := flags.Float64("coefficient", 0.2, "`c_int` of the recipes with intrinsic reward, at the first step")
	decay := flags.Int("decay", 40, "`steps` over which c_int goes to 0; 0 keeps it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.seeds < 1 || s.window < 1 || s.steps < s.window {
		return errors.New("want at least one seed and as many steps as the window has")
	}
	all := arms(*coefficient, *decay)
	for name := range strings.SplitSeq(*recipes, ",") {
		i := slices.IndexFunc(all, func(a arm) bool { return a.name == strings.TrimSpace(name) })
		if i < 0 {
			return fmt.Errorf("no recipe is %q, see -h for their names", name)
		}
		s.arms = append(s.arms, all[i])
	}
	stages, known := starts()[*start]
	if !known {
		return fmt.Errorf("no warm start is %q, see -h for their names", *start)
	}
	if s.out == "" { // of a start: what lies there is gone on with
		s.out = filepath.Join("runs", "learning-"+*start)
	}
	if err := s.build(ctx); err != nil {
		return err
	}
	if err := s.prepare(ctx, stages); err != nil {
		return err
	}
	return s.compare(ctx)
}

// arms are the recipes: exact match alone, ONI's three intrinsic rewards, and
// controls in which these are dealt out at random among the turns.
func arms(coefficient float64, decay int) []arm {
	pay := func(model, source string, c float64, more ...string) []string {
		if decay > 0 {
			more = append(more, "reward.intrinsic.decay=linear", fmt.Sprint("reward.intrinsic.decay_steps=", decay))
		}
		return append([]string{
			"reward.intrinsic.source=" + source, fmt.Sprint("reward.intrinsic.coefficient=", c),
			"judge.judge=rule", "judge.reward_model.kind=" + model,
			// Steps take about a second here, not a minute.
			"judge.reward_model.publish_interval=2s",
		}, more...)
	}
	const shuffle = "reward.intrinsic.shuffle=true"
	return []arm{
		{"outcome", pay("classification", "classification", 0)}, // trained and not paid
		{"classification", pay("classification", "classification", coefficient)},
		{"ranking", pay("ranking", "ranking", coefficient)},
		// The judge's own labels, where they have come by the time of sampling.
		{"retrieval", pay("retrieval", "helpful", coefficient)},
		{"classification shuffled", pay("classification", "classification", coefficient, shuffle)},
		{"retrieval shuffled", pay("retrieval", "helpful", coefficient, shuffle)},
	}
}

// prepare makes questions, passages and the starting policy.
func (s *study) prepare(ctx context.Context, stages string) error {
	world := filepath.Join(s.out, "world")
	if _, err := s.command(ctx, 10*time.Minute, "world", "tasks", "build", "--out", world); err != nil {
		return err
	}
	s.tasks, s.corpus = filepath.Join(world, "three-hops.jsonl"), filepath.Join(world, "corpus.jsonl")
	if err := threeHops(filepath.Join(world, "tasks.jsonl"), s.tasks); err != nil {
		return err
	}
	if s.policy != "" || stages == "" {
		return nil
	}
	s.policy = filepath.Join(s.out, "start")
	if _, err := os.Stat(filepath.Join(s.policy, "model.safetensors")); err == nil {
		return nil
	}
	_, err := s.command(ctx, time.Hour, "warmstart", "warmstart", "--out", s.policy, "--set", "warmstart.stages="+stages)
	return err
}

// threeHops copies the questions of three hops.
func threeHops(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var task struct {
			Hops int `json:"hops"`
		}
		if err := json.Unmarshal(lines.Bytes(), &task); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if task.Hops == 3 {
			kept.Write(lines.Bytes())
			kept.WriteByte('\n')
		}
	}
	return errors.Join(lines.Err(), os.WriteFile(to, kept.Bytes(), 0o644))
}

// compare makes the runs, prints the table and draws the curves.
func (s *study) compare(ctx context.Context) error {
	curves := make([][][]float64, len(s.arms)) // by arm and seed: exact match by step, averaged over the window
	for seed := 1; seed <= s.seeds; seed++ {
		for i, a := range s.arms {
			curve, err := s.curve(ctx, a, seed)
			if err != nil {
				return err
			}
			curves[i] = append(curves[i], curve)
			fmt.Fprintf(os.Stderr, "seed %d, %s: %s steps to %.2f, at the end %.3f\n", seed, a.name, s.shown(s.reached(curve)), s.target, curve[len(curve)-1])
		}
	}
	fmt.Fprintf(os.Stdout, "Learner steps until %.2f of the training questions are answered right (mean over %d steps), at most %d:\n\n", s.target, s.window, s.steps)
	header, rule := "| recipe |", "|---|"
	for seed := 1; seed <= s.seeds; seed++ {
		header, rule = header+fmt.Sprintf(" seed %d |", seed), rule+"---:|"
	}
	fmt.Fprintln(os.Stdout, header+" times as fast: min | median | max | final exact match, median |\n"+rule+"---:|---:|---:|---:|")
	for i, a := range s.arms {
		row := "| " + a.name + " |"
		var ratios, last []float64
		for seed, curve := range curves[i] {
			steps := s.reached(curve)
			row += " " + s.shown(steps) + " |"
			ratios = append(ratios, float64(s.reached(curves[0][seed]))/float64(steps))
			last = append(last, curve[len(curve)-1])
		}
		fmt.Fprintf(os.Stdout, "%s %s | %.3f |\n", row, spreadOf(ratios), spreadOf(last).median)
	}
	fmt.Fprintf(os.Stdout, "\nA run that does not get there counts as %d steps.\n", s.steps)
	return os.WriteFile(filepath.Join(s.out, "curves.svg"), s.chart(curves).SVG(), 0o644)
}

// curve makes one run and gives its exact match by step.
func (s *study) curve(ctx context.Context, a arm, seed int) ([]float64, error) {
	id := fmt.Sprintf("%s-seed-%d", strings.Join(strings.FieldsFunc(strings.ToLower(a.name), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
	}), "-"), seed)
	set := slices.Concat([]string{
		fmt.Sprint("run.seed=", seed), "policy.path=" + s.policy, "data.tasks=" + s.tasks, "data.corpus=" + s.corpus,
		"learner.groups_per_step=8", "learner.max_groups_per_step=8",
		"reward.weights={em: 1, valid: 0.2}", // or searching for ever pays more than answering
		"learner.decay=constant",             // so that the number of steps does not show in the rate
	}, a.set)
	rows, _, err := s.train(ctx, time.Duration(s.steps)*time.Minute, id, s.steps, set...)
	if err != nil {
		return nil, err
	}
	return smooth(rows, s.window), nil
}

// smooth is the mean exact match of the window that ends at each step.
func smooth(rows []rundir.MetricsRow, window int) []float64 {
	curve := make([]float64, len(rows))
	for i := range rows {
		from := max(0, i+1-window)
		for _, r := range rows[from : i+1] {
			curve[i] += r.Values["em"] / float64(i+1-from)
		}
	}
	return curve
}

// reached is the first step at which a curve has reached the target, with a whole
// window behind it; the number of steps when it never does.
func (s *study) reached(curve []float64) int {
	for i := s.window - 1; i < len(curve); i++ {
		if curve[i] >= s.target {
			return i + 1
		}
	}
	return s.steps
}

func (s *study) shown(steps int) string {
	if steps == s.steps {
		return fmt.Sprintf("≥ %d", steps)
	}
	return fmt.Sprint(steps)
}

// chart shows the median over seeds of each recipe.
func (s *study) chart(curves [][][]float64) rundir.Chart {
	c := rundir.Chart{
		Title:  fmt.Sprintf("Three-hop questions, median of %d seeds", s.seeds),
		XLabel: "learner step", YLabel: fmt.Sprintf("exact match, mean over %d steps", s.window),
	}
	for i, a := range s.arms {
		series := rundir.Series{Name: a.name}
		for step := range s.steps {
			var values []float64
			for _, curve := range curves[i] {
				values = append(values, curve[step])
			}
			series.Points = append(series.Points, rundir.Point{X: float64(step + 1), Y: spreadOf(values).median})
		}
		c.Series = append(c.Series, series)
	}
	return c
}
