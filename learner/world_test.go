package learner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/forager-rl/forager"
)

const (
	prompts = 3 // tasks of the bandit
	arms    = 5 // its actions; arm (prompt+1) % arms is right
)

var errCrash = fmt.Errorf("process killed: %w", forager.ErrFenced) // permanent, so that nothing retries

// bandit is a softmax policy over arms for every prompt, trained by plain
// gradient descent.
type bandit struct {
	theta, grad [prompts][arms]float64
	updates     int
	broken      func(update int) bool // updates whose gradient is not finite
}

func (b *bandit) logp(prompt, arm int32) float64 {
	sum := 0.0
	for _, v := range b.theta[prompt] {
		sum += math.Exp(v)
	}
	return b.theta[prompt][arm] - math.Log(sum)
}

func (b *bandit) Logprobs(seqs []Sequence) ([][]float32, error) {
	out := make([][]float32, len(seqs))
	for i, s := range seqs {
		out[i] = []float32{0, float32(b.logp(s.Tokens[0], s.Tokens[1]))}
	}
	return out, nil
}

func (b *bandit) Accumulate(seqs []Sequence, loss func(i int, logp, grad []float32)) error {
	logps, _ := b.Logprobs(seqs)
	for i, s := range seqs {
		grad := []float32{7, 7} // dirty on purpose
		loss(i, logps[i], grad)
		if grad[0] != 0 {
			return errors.New("the prompt token has a gradient")
		}
		for arm := range int32(arms) {
			indicator := 0.0
			if arm == s.Tokens[1] {
				indicator = 1
			}
			b.grad[s.Tokens[0]][arm] += float64(grad[1]) * (indicator - math.Exp(b.logp(s.Tokens[0], arm)))
		}
	}
	return nil
}

func (b *bandit) Update(rate float32) (float64, bool) {
	b.updates++
	if b.broken != nil && b.broken(b.updates) {
		b.grad = [prompts][arms]float64{}
		return math.NaN(), false
	}
	norm := 0.0
	for p := range b.theta {
		for a := range b.theta[p] {
			norm += b.grad[p][a] * b.grad[p][a]
			b.theta[p][a] -= float64(rate) * b.grad[p][a]
		}
	}
	b.grad = [prompts][arms]float64{}
	return math.Sqrt(norm), true
}

// pg is a minimal algorithm, so that this package tests its loop alone:
// centred rewards and the plain policy gradient.
type pg struct{}

func (pg) NeedsReference() bool { return false }

func (pg) Advantages(group []Sequence, rewards []float64) bool {
	mean := 0.0
	for _, r := range rewards {
		mean += r / float64(len(rewards))
	}
	informative := false
	for i, s := range group {
		s.Advantages[1] = float32(rewards[i] - mean)
		informative = informative || rewards[i] != rewards[0]
	}
	return informative
}

func (pg) Loss(s *Sequence, logp []float32, normaliser float64, grad []float32) Terms {
	grad[1] = -s.Advantages[1] / float32(normaliser)
	return Terms{Tokens: 1, Loss: -float64(logp[1]*s.Advantages[1]) / normaliser, Ratio: 1, RatioMax: 1, Entropy: -float64(logp[1])}
}

// world is everything around the learner, in memory: actors that play a credit
// the moment it is issued, replay, cluster and checkpoints. It outlives the
// learners that are killed.
type world struct {
	policy    bandit // what actors run
	published forager.Version
	any       bool

	table  []forager.Group // in order of insertion
	seen   map[uint64]bool
	leased map[uint64]bool
	gone   map[uint64]bool
	learnt map[uint64]int // times that a group was offered and then committed

	state  *State // last checkpoint
	theta  [prompts][arms]float64
	steps  []StepMetrics
	issued []uint64
	model  *bandit

	calls, killAt int                     // the call to the world that kills the learner; 0 never
	lose          func(index uint64) bool // credits that vanish the first time
	fail          func(index uint64) bool // groups whose environment failed
	stale         func(index uint64) bool // groups that replay drops
	vanished      map[uint64]bool
	full          int           // issues to be refused
	holds, lostAt int           // questions about the lease; the one from which it is lost, 0 never
	late          []string      // what was done after that
	tick          time.Duration // that a sample takes, in a bubble; 0: none, and time stands still
	maxOpen       int
	now           time.Time
}

func newWorld() *world {
	return &world{
		seen: map[uint64]bool{}, leased: map[uint64]bool{}, gone: map[uint64]bool{},
		learnt: map[uint64]int{}, vanished: map[uint64]bool{}, now: time.Unix(1e9, 0),
	}
}

func (w *world) call() error {
	w.calls++
	if w.calls == w.killAt {
		return errCrash
	}
	return nil
}

// learner makes a learner that resumes from the last checkpoint, if there is one.
func (w *world) learner(config Config) (*Learner, error) {
	w.model = &bandit{theta: w.theta}
	ids := []string{"0", "1", "2"}
	tasks, err := NewTasks(ids, 7)
	if err != nil {
		return nil, err
	}
	return New(config, Deps{
		RunID: "run", Seed: 7, Epoch: 1, Model: w.model, Algorithm: pg{},
		Reward: func(r *forager.Rollout, _ uint64) Reward {
			v, ok := r.Rewards["em"]
			return Reward{Value: v, Known: ok}
		},
		Tasks: tasks, Source: w, Lease: w, Credits: w, Publisher: w, Checkpoints: w, Reporter: w,
		Resume: w.state, Logger: slog.New(slog.DiscardHandler),
		Clock: w.clock,
	})
}

// clock stands still unless sampling takes time.
func (w *world) clock() time.Time {
	if w.tick > 0 {
		return time.Now()
	}
	return w.now
}

func (w *world) Hold(context.Context) error {
	w.holds++
	if w.lost() {
		return forager.ErrFenced
	}
	return nil
}

func (w *world) lost() bool { return w.lostAt > 0 && w.holds >= w.lostAt }

// effect is a call that others see.
func (w *world) effect(what string) error {
	if w.lost() {
		w.late = append(w.late, what)
	}
	return w.call()
}

func (w *world) Withdraw(_ context.Context, held func() error) error {
	if err := held(); err != nil {
		return err
	}
	return w.effect("withdraw")
}

func (w *world) Issue(_ context.Context, c forager.Credit) error {
	if err := w.effect("issue"); err != nil {
		return err
	}
	if w.full > 0 {
		w.full--
		return forager.ErrFull
	}
	w.issued = append(w.issued, c.Index)
	if w.lose != nil && w.lose(c.Index) && !w.vanished[c.Index] {
		w.vanished[c.Index] = true
		return nil
	}
	if !w.seen[c.Index] {
		w.seen[c.Index] = true
		w.table = append(w.table, w.play(c))
	}
	return nil
}

func (w *world) play(c forager.Credit) forager.Group {
	g := forager.Group{Credit: c}
	prompt := int32(c.TaskID[0] - '0')
	for sample := range c.GroupSize {
		rng := rand.New(rand.NewPCG(c.Seed, uint64(sample)))
		u, arm := rng.Float64(), int32(0)
		for ; arm < arms-1; arm++ {
			if u -= math.Exp(w.policy.logp(prompt, arm)); u < 0 {
				break
			}
		}
		em := 0.0
		if arm == (prompt+1)%arms {
			em = 1
		}
		r := forager.Rollout{
			Run: c.Run, ID: forager.RolloutID(c.Run, c.Index, sample), Group: c.Index, Sample: sample,
			Tokens: []int32{prompt, arm}, LossMask: []bool{false, true},
			Logprobs: []float32{0, float32(w.policy.logp(prompt, arm))},
			Versions: []forager.VersionSpan{{Span: forager.Span{Start: 1, End: 2}, Version: w.published}},
			Turns:    []forager.Turn{{Kind: forager.TurnAnswer, Action: forager.Span{Start: 1, End: 2}}},
			Finish:   forager.FinishAnswer, Rewards: map[string]float64{"em": em},
		}
		if w.fail != nil && w.fail(c.Index) {
			r.Finish = forager.FinishRetriever
		}
		g.Rollouts = append(g.Rollouts, r)
	}
	return g
}

func (w *world) Begin(_ context.Context, from uint64) (Inventory, error) {
	if err := w.call(); err != nil {
		return Inventory{}, err
	}
	clear(w.leased)
	var inv Inventory
	for _, g := range w.table {
		if g.Credit.Index >= from {
			inv.Held = append(inv.Held, g.Credit.Index)
		}
	}
	for index := range w.gone {
		if index >= from {
			inv.Gone = append(inv.Gone, index)
		}
	}
	return inv, nil
}

func (w *world) Sample(_ context.Context, r Request) (Sample, error) {
	if err := w.call(); err != nil {
		return Sample{}, err
	}
	time.Sleep(w.tick)
	w.maxOpen = max(w.maxOpen, len(w.table)-len(w.leased))
	var s Sample
	for _, g := range w.table {
		if len(s.Groups) == r.MaxGroups {
			break
		}
		switch index := g.Credit.Index; {
		case w.leased[index]:
		case w.stale != nil && w.stale(index):
			w.leased[index] = true
			s.Dropped = append(s.Dropped, Drop{Group: index, Reason: "stale"})
		default:
			w.leased[index] = true
			s.Groups = append(s.Groups, g)
		}
	}
	if len(s.Groups)+len(s.Dropped) == 0 {
		w.now = w.now.Add(time.Second) // what waiting would cost
	}
	return s, nil
}

func (w *world) Commit(_ context.Context, groups []uint64) error {
	if err := w.effect("commit"); err != nil {
		return err
	}
	for _, index := range groups {
		before := len(w.table)
		w.table = slices.DeleteFunc(w.table, func(g forager.Group) bool { return g.Credit.Index == index })
		if len(w.table) < before {
			w.gone[index] = true
			w.learnt[index]++
		}
	}
	return nil
}

func (w *world) Published(context.Context) (forager.Version, bool, error) {
	return w.published, w.any, w.call()
}

func (w *world) Publish(_ context.Context, v forager.Version, _ uint64) error {
	if err := w.effect("publish"); err != nil {
		return err
	}
	if w.any && v <= w.published {
		return forager.ErrStale
	}
	w.published, w.any = v, true
	w.policy.theta = w.model.theta
	return nil
}

func (w *world) Save(s State, held func() error) error {
	if err := held(); err != nil {
		return err
	}
	if err := w.effect("save"); err != nil {
		return err
	}
	w.state, w.theta = &s, w.model.theta
	return nil
}

func (w *world) Record(context.Context) error { return w.effect("record") }

func (w *world) Step(m StepMetrics) {
	if w.lost() {
		w.late = append(w.late, "report")
	}
	w.steps = append(w.steps, m)
}
