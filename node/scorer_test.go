package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/policy/builtin"
	"github.com/forager-rl/forager/reward"
	"github.com/forager-rl/forager/rewardsrv"
	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
	"github.com/forager-rl/forager/rundir"
)

// searched makes a group of rollouts that searched in the given way.
func searched(tb testing.TB, key uint64, task string, queries ...string) forager.Group {
	tb.Helper()
	_, tok, err := builtin.Load()
	if err != nil {
		tb.Fatal(err)
	}
	g := forager.Group{Credit: forager.Credit{Run: "run", Index: key, TaskID: task}}
	for sample := range 4 {
		r := forager.Rollout{ID: forager.RolloutID("run", key, sample), TaskID: task, Tokens: tok.Encode("What is it?")}
		for _, q := range queries {
			start := int32(len(r.Tokens))
			r.Tokens = append(r.Tokens, tok.Encode("<information>Title: "+q+". The "+q+" is in France.</information>")...)
			r.Turns = append(r.Turns, forager.Turn{
				Kind: forager.TurnSearch, Text: q, Observation: forager.Span{Start: start, End: int32(len(r.Tokens))},
				ObservationKey: forager.Digest(q),
			})
		}
		r.Turns = append(r.Turns, forager.Turn{Kind: forager.TurnAnswer, Text: "France"})
		r.Logprobs, r.LossMask = make([]float32, len(r.Tokens)), make([]bool, len(r.Tokens))
		g.Rollouts = append(g.Rollouts, r)
	}
	return g
}

// modelScorer scores with a model that has learned to like what was searched for.
func modelScorer(tb testing.TB) *scorer {
	tb.Helper()
	config := rewardmodel.DefaultConfig()
	config.Steps = 200
	trainer, err := rewardmodel.NewTrainer(config, 1)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range 40 {
		q, found, label := fmt.Sprint("city ", i), fmt.Sprint("city ", i), 1.0
		if i%2 == 1 {
			found, label = "nothing of the kind", 0
		}
		trainer.Add(rewardmodel.Example{Question: "What is it?", Query: q, Observation: "Title: " + found}, label)
	}
	trainer.Train(40)
	_, tok, err := builtin.Load()
	if err != nil {
		tb.Fatal(err)
	}
	w := &modelWatcher{kind: rewardmodel.Classification, logger: slog.New(slog.DiscardHandler)}
	w.current.Store(trainer.Snapshot())
	return &scorer{
		source: "classification", seed: 1, decode: tok.Decode, models: w, clock: func() time.Time { return time.Unix(1e9, 0) },
		tasks: &dataset{byID: map[string]forager.Task{"t": {ID: "t", Question: "What is it?"}}},
	}
}

// Every search turn of every rollout is scored as the model would score it, and
// nothing else is.
func TestScorerScoresEverySearchTurn(t *testing.T) {
	s := modelScorer(t)
	model := s.models.current.Load()
	groups := []forager.Group{searched(t, 1, "t", "city Paris", "river Rhine"), searched(t, 2, "unknown", "city Rome")}
	broken := &groups[0].Rollouts[3]
	broken.Turns[0].Observation.End = 9999
	s.annotate(groups)
	for _, r := range groups[0].Rollouts[:3] {
		if len(r.Annotations) != 2 {
			t.Fatalf("%d annotations, want 2", len(r.Annotations))
		}
		for i, a := range r.Annotations {
			turn := r.Turns[i]
			want := model.Reward(rewardmodel.Example{
				Question: "What is it?", Query: turn.Text,
				Observation: "<information>Title: " + turn.Text + ". The " + turn.Text + " is in France.</information>",
			})
			version, ok := a.ModelVersion()
			if a.RolloutID != r.ID || a.Turn != i || a.Source != "classification" || *a.Value != want || !ok || version != model.Version() {
				t.Errorf("turn %d: %+v with value %v, want %v", i, a, *a.Value, want)
			}
		}
	}
	for _, r := range []forager.Rollout{*broken, groups[1].Rollouts[0]} {
		if len(r.Annotations) != 0 {
			t.Errorf("%s is scored: %+v", r.ID, r.Annotations)
		}
	}

	s.models.current.Store(nil) // none has been trained
	groups = []forager.Group{searched(t, 1, "t", "city Paris")}
	if s.annotate(groups); len(groups[0].Rollouts[0].Annotations) != 0 {
		t.Error("scored without a model")
	}
	s = nil
	s.annotate(groups) // no intrinsic source
}

// The control deals out the same values, in the same way for the same groups, and
// leaves those of other sources where they are.
func TestShuffleKeepsTheValues(t *testing.T) {
	values := func(deal bool) (list []float64) {
		s := &scorer{source: "classification", seed: 1}
		groups := []forager.Group{searched(t, 7, "t", "city Paris", "river Rhine"), searched(t, 8, "t", "river Po")}
		n := 0.0
		for g := range groups {
			for i := range groups[g].Rollouts {
				value, other := n, -1.0
				groups[g].Rollouts[i].Annotations = []forager.Annotation{{Source: "classification", Value: &value}, {Source: "helpful", Value: &other}}
				n++
			}
		}
		if deal {
			s.deal(groups)
		}
		for _, g := range groups {
			for _, r := range g.Rollouts {
				list = append(list, *r.Annotations[0].Value)
				if *r.Annotations[1].Value != -1 {
					t.Error("a value of another source was dealt out")
				}
			}
		}
		return list
	}
	plain, shuffled := values(false), values(true)
	if slices.Equal(plain, shuffled) || !slices.Equal(shuffled, values(true)) {
		t.Errorf("dealt out as %v, then as %v", shuffled, values(true))
	}
	slices.Sort(shuffled)
	if !slices.Equal(plain, shuffled) {
		t.Errorf("values %v became %v", plain, shuffled)
	}
}

func TestRewardModelThatCannotBeUsedIsRefused(t *testing.T) {
	s := modelScorer(t)
	w := s.models
	w.logger = testLogger(t)
	good := w.current.Load()
	ranking, err := rewardmodel.NewTrainer(rewardmodel.Config{
		Kind: rewardmodel.Ranking, BatchSize: 1, LearningRate: 1e-3, GradientClip: 1, Steps: 1, ManyLabels: 1, MaxExamples: 1, MinLabels: 1,
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		err  error
		want error
	}{
		{"damaged", good.Encode()[:100], nil, forager.ErrCorrupt},
		{"other kind", ranking.Snapshot().Encode(), nil, forager.ErrSchema},
		{"unreachable", nil, errors.ErrUnsupported, errors.ErrUnsupported},
		{"not there yet", nil, forager.ErrNotFound, nil},
	} {
		w.latest = func(context.Context) ([]byte, error) { return c.data, c.err }
		if err := w.refresh(t.Context()); !errors.Is(err, c.want) || w.current.Load() != good {
			t.Errorf("%s: %v, kept %v", c.name, err, w.current.Load() == good)
		}
	}
	w.latest = func(context.Context) ([]byte, error) { return good.Encode(), nil }
	if err := w.refresh(t.Context()); err != nil || w.current.Load() == good || w.current.Load().Version() != good.Version() {
		t.Errorf("a good one: %v", err)
	}
}

// A model that is published reaches the watcher.
func TestRewardModelTravelsOverTheBus(t *testing.T) {
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision = "run", t.TempDir(), true
	b, err := bus.Open(t.Context(), cfg, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	trained := modelScorer(t).models.current.Load()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	asked := make(chan struct{})
	models := rewardModels{b}
	w := &modelWatcher{kind: rewardmodel.Classification, logger: testLogger(t)}
	w.latest = func(ctx context.Context) ([]byte, error) {
		select {
		case asked <- struct{}{}:
		case <-ctx.Done():
		}
		return models.Latest(ctx)
	}
	done := make(chan error)
	go func() { done <- w.run(ctx, b) }()
	<-asked // none is there
	for w.current.Load() == nil && ctx.Err() == nil {
		// Again, should the watcher not have been listening yet.
		if err := models.Publish(ctx, trained.Version(), string(trained.Kind()), trained.Encode()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-asked:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if m := w.current.Load(); m == nil || m.Version() != trained.Version() {
		t.Error("the model did not arrive")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What was judged once counts for every turn that searched and found the same;
// the table forgets what is oldest.
func TestLabelTable(t *testing.T) {
	table := newLabelTable("helpful")
	table.limit = 10
	value := 1.0
	turn := func(i int) forager.Turn {
		return forager.Turn{Kind: forager.TurnSearch, Text: fmt.Sprint("query ", i), ObservationKey: forager.Digest(fmt.Sprint(i))}
	}
	by := authority{"rule", "r1"}
	add := func(i int, source string, v *float64) {
		table.add(&forager.Annotation{Source: source, Value: v, Key: rewardsrv.TurnKey(by.rubric, by.judge, "t", turn(i).Text, turn(i).ObservationKey, nil), Judge: by.judge, Rubric: by.rubric})
	}
	add(100, "other", &value)
	add(101, "helpful", nil)
	for i := range 30 {
		add(i, "helpful", &value)
	}
	found := 0
	for i := range 200 {
		other := turn(i)
		other.Text = strings.ToUpper(other.Text) + "!"
		if a, ok := table.find("t", other, nil); ok {
			found++
			if *a.Value != 1 || a.Judge != "rule" || a.Rubric != "r1" || i < 10 {
				t.Errorf("query %d: %+v", i, a)
			}
		}
	}
	if found != 20 {
		t.Errorf("%d labels are kept, want 20", found)
	}
	by.rubric = "history"
	table.add(&forager.Annotation{Source: "helpful", Value: &value, Key: rewardsrv.TurnKey(by.rubric, by.judge, "t", turn(1).Text, turn(1).ObservationKey, []string{"Before"}), Judge: by.judge, Rubric: by.rubric})
	if _, ok := table.find("t", turn(1), []string{"before!"}); !ok {
		t.Error("a label that depends on earlier queries is not found")
	}
	if _, ok := table.find("t", turn(1), []string{"after"}); ok {
		t.Error("a label is found for other earlier queries")
	}
	for range 2 * maxAuthorities { // new rubrics
		by.rubric += "+"
		add(1000, "helpful", &value)
	}
	if _, ok := table.find("t", turn(29), nil); ok || len(table.authorities) != maxAuthorities {
		t.Errorf("%d authorities", len(table.authorities))
	}
}

// A run with intrinsic reward archives exactly what it learned from: the
// recipe's rewards of the archived rollouts are those of the metrics.
func TestArchivedRewardsAreThoseLearnedFrom(t *testing.T) {
	cfg := quick(t)
	cfg.Eval.Skip = true
	cfg.Learner.Steps = 6
	cfg.Reward.Intrinsic.Source, cfg.Reward.Intrinsic.Coefficient = cfg.Judge.Source, 0.25
	result, err := Train(t.Context(), cfg, TrainOptions{Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := rundir.Open(result.Dir)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := rundir.ReadMetrics(dir.MetricsPath())
	if err != nil {
		t.Fatal(err)
	}
	var reported, intrinsic, rollouts, labelled float64
	for _, r := range rows {
		n := r.Values["rollouts"]
		rollouts += n
		reported += n * r.Values["reward"]
		intrinsic += n * r.Values["intrinsic_reward"]
		labelled += r.Values["label_coverage"]
	}
	recipe, err := reward.NewRecipe(cfg.Reward)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir.RolloutsPath(), "*.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	var archived, paid float64
	n := 0
	table := newLabelTable(cfg.Judge.Source)
	var turns []forager.Rollout
	for _, file := range files {
		groups, err := batch.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for i := range g.Rollouts {
				c := recipe.Combine(&g.Rollouts[i], 0)
				archived += c.Total
				paid += c.Intrinsic
				n++
				turns = append(turns, g.Rollouts[i])
			}
		}
	}
	if n != int(rollouts) || abs(archived-reported) > 1e-6 || abs(paid-intrinsic) > 1e-6 || paid == 0 || labelled == 0 {
		t.Errorf("%d archived rollouts with rewards of %v (%v intrinsic); metrics of %v rollouts say %v (%v), coverage %v",
			n, archived, paid, rollouts, reported, intrinsic, labelled)
	}

	// The reward server's keys are those that the table looks for.
	for _, r := range turns {
		for i := range r.Annotations {
			table.add(&r.Annotations[i])
		}
	}
	for _, r := range turns {
		for i := range r.Annotations {
			a := &r.Annotations[i]
			if found, ok := table.find(r.TaskID, r.Turns[a.Turn], nil); a.Value != nil && (!ok || found.Key != a.Key || *found.Value != *a.Value) {
				t.Fatalf("turn %+v is not found by key %s", r.Turns[a.Turn], a.Key)
			}
		}
	}
}

func TestIntrinsicSourceNeedsSomebodyToGiveIt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		ok     bool
	}{
		"labels":          {func(c *Config) { c.Reward.Intrinsic.Source = "helpful" }, true},
		"misspelt labels": {func(c *Config) { c.Reward.Intrinsic.Source = "helpfu" }, false},
		"no model":        {func(c *Config) { c.Reward.Intrinsic.Source = "ranking" }, false},
		"a model": {func(c *Config) {
			c.Reward.Intrinsic.Source, c.Judge.RewardModel.Kind = "ranking", rewardmodel.Ranking
		}, true},
		"another model": {func(c *Config) {
			c.Reward.Intrinsic.Source, c.Judge.RewardModel.Kind = "ranking", rewardmodel.Classification
		}, false},
		"nobody judges": {func(c *Config) { c.Reward.Intrinsic.Source, c.Judge.Judge = "helpful", "none" }, false},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		if err := cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

// BenchmarkAnnotate scores a step's worth of groups: 16 of 8 rollouts with 3
// searches, each of them different.
func BenchmarkAnnotate(b *testing.B) {
	s := modelScorer(b)
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		var groups []forager.Group
		for key := range uint64(32) {
			groups = append(groups, searched(b, key, "t", fmt.Sprint("city ", rng.IntN(1e9)), fmt.Sprint("river ", rng.IntN(1e9)), fmt.Sprint("lake ", rng.IntN(1e9))))
		}
		b.StartTimer()
		s.annotate(groups)
	}
}
