package grpo

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/learner"
)

// arms of a bandit with one prompt; the last arm is right.
const arms = 6

// softmax is a policy over arms, trained by plain gradient descent.
type softmax struct{ theta, grad [arms]float64 }

func (m *softmax) logp(arm int32) float64 {
	sum := 0.0
	for _, v := range m.theta {
		sum += math.Exp(v)
	}
	return m.theta[arm] - math.Log(sum)
}

func (m *softmax) Logprobs(seqs []learner.Sequence) ([][]float32, error) {
	out := make([][]float32, len(seqs))
	for i, s := range seqs {
		out[i] = []float32{0, float32(m.logp(s.Tokens[1]))}
	}
	return out, nil
}

func (m *softmax) Accumulate(seqs []learner.Sequence, loss func(i int, logp, grad []float32)) error {
	for i, s := range seqs {
		grad := make([]float32, 2)
		loss(i, []float32{0, float32(m.logp(s.Tokens[1]))}, grad)
		m.grad[s.Tokens[1]] += float64(grad[1])
		for arm := range m.grad {
			m.grad[arm] -= float64(grad[1]) * math.Exp(m.logp(int32(arm)))
		}
	}
	return nil
}

func (m *softmax) Update(rate float32) (float64, bool) {
	norm := 0.0
	for i, g := range m.grad {
		m.theta[i] -= float64(rate) * g
		norm += g * g
	}
	m.grad = [arms]float64{}
	return math.Sqrt(norm), true
}

// island is the rest of the system: it plays every credit at once.
type island struct {
	model  *softmax
	policy softmax
	table  []forager.Group
	steps  []learner.StepMetrics
}

func (w *island) Record(context.Context) error                 { return nil }
func (w *island) Hold(context.Context) error                   { return nil }
func (w *island) Withdraw(context.Context, func() error) error { return nil }

func (w *island) Issue(_ context.Context, c forager.Credit) error {
	g := forager.Group{Credit: c}
	for sample := range c.GroupSize {
		u, arm := rand.New(rand.NewPCG(c.Seed, uint64(sample))).Float64(), int32(0)
		for ; arm < arms-1; arm++ {
			if u -= math.Exp(w.policy.logp(arm)); u < 0 {
				break
			}
		}
		reward := 0.0
		if arm == arms-1 {
			reward = 1
		}
		g.Rollouts = append(g.Rollouts, forager.Rollout{
			Run: c.Run, ID: forager.RolloutID(c.Run, c.Index, sample), Group: c.Index, Sample: sample,
			Tokens: []int32{0, arm}, LossMask: []bool{false, true}, Logprobs: []float32{0, float32(w.policy.logp(arm))},
			Versions: []forager.VersionSpan{{Span: forager.Span{Start: 1, End: 2}, Version: c.Version}},
			Finish:   forager.FinishAnswer, Rewards: map[string]float64{"em": reward},
		})
	}
	w.table = append(w.table, g)
	return nil
}

func (w *island) Begin(context.Context, uint64) (learner.Inventory, error) {
	return learner.Inventory{}, nil
}

func (w *island) Sample(_ context.Context, r learner.Request) (s learner.Sample, err error) {
	n := min(r.MaxGroups, len(w.table))
	s.Groups, w.table = w.table[:n], w.table[n:]
	return s, nil
}

func (w *island) Commit(context.Context, []uint64) error { return nil }

func (w *island) Published(context.Context) (forager.Version, bool, error) { return 0, false, nil }

func (w *island) Publish(context.Context, forager.Version, uint64) error {
	w.policy = *w.model
	return nil
}

func (w *island) Save(learner.State, func() error) error { return nil }

func (w *island) Step(m learner.StepMetrics) { w.steps = append(w.steps, m) }

// The loop, the formula and a policy together learn the right arm from rewards
// alone, one version off-policy, with several updates a step.
func TestRewardRisesThroughTheLoop(t *testing.T) {
	reference := &softmax{}
	w := &island{model: &softmax{}}
	config := learner.DefaultConfig()
	config.Steps, config.GroupsPerStep, config.MaxGroupsPerStep = 30, 8, 32
	config.LearningRate, config.Decay, config.MiniBatches, config.Epochs = 1, learner.DecayConstant, 2, 2
	tasks, err := learner.NewTasks([]string{"only"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	formula := DefaultConfig()
	formula.KLCoefficient = 0.01
	l, err := learner.New(config, learner.Deps{
		RunID: "run", Seed: 1, Epoch: 1, Model: w.model, Reference: reference, Algorithm: New(formula),
		Reward: func(r *forager.Rollout, _ uint64) learner.Reward {
			return learner.Reward{Value: r.Rewards["em"], Known: true}
		},
		Tasks: tasks, Source: w, Lease: w, Credits: w, Publisher: w, Checkpoints: w, Reporter: w,
		Logger: slog.New(slog.DiscardHandler), Clock: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, last := w.steps[0], w.steps[len(w.steps)-1]
	if first.Reward > 0.4 || last.Reward < 0.85 {
		t.Fatalf("reward went from %.2f to %.2f", first.Reward, last.Reward)
	}
	if last.KL <= 0 || last.Drift <= 0 || first.Entropy <= last.Entropy {
		t.Fatalf("divergence %v, drift %v, entropy %v then %v", last.KL, last.Drift, first.Entropy, last.Entropy)
	}
}
