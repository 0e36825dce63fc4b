package learner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// patience is how many times MaxGroupsPerStep may go by without one informative
// group before the step ends without an update: a solved task, or a hopeless one.
const patience = 4

// maxAhead bounds how far a crashed predecessor may have issued credits beyond
// its last checkpoint. An index beyond that is damage.
const maxAhead = 1 << 14

// harvest is what was gathered for one step.
type harvest struct {
	groups   []trainable // informative ones, by credit index
	taken    map[uint64]bool
	tally    rolloutTally
	sampled  int // groups that came
	dropped  int // of them, taught nothing
	given    int // given up by replay
	repeated int
}

// trainable is an informative group; rewards[i] belongs to sequences[i].
type trainable struct {
	index     uint64
	sequences []Sequence
	rewards   []float64
	trace     forager.Trace // of its sampling
}

func (h *harvest) fill(m *StepMetrics) {
	h.tally.fill(m)
	m.GroupsSampled, m.GroupsInformative, m.GroupsDropped = h.sampled, len(h.groups), h.dropped
	m.GroupsStale, m.GroupsRepeated = h.given, h.repeated
}

// gather samples until the step has its informative groups, or has seen
// MaxGroupsPerStep and has at least one, or has lost patience. Credits of groups
// that are of no use are returned, and replaced, as they turn up.
func (l *Learner) gather(ctx context.Context) (*harvest, error) {
	h := &harvest{taken: make(map[uint64]bool)}
	progress := l.Clock()
	for !l.enough(h) {
		if err := l.topUp(ctx); err != nil {
			return nil, err
		}
		request := Request{
			MaxGroups:    l.config.GroupsPerStep - len(h.groups),
			Version:      l.state.Version,
			MaxStaleness: l.config.MaxStaleness,
		}
		var sample Sample
		err := l.retry(ctx, "sample from replay", func() (err error) {
			sample, err = l.Source.Sample(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for groups: %w", context.Cause(ctx))
		}
		for _, drop := range sample.Dropped {
			l.Logger.Debug("group given up by replay", "group", drop.Group, "reason", drop.Reason)
			l.giveUp(h, drop.Group)
		}
		for i := range sample.Groups {
			l.take(h, &sample.Groups[i])
		}
		now := l.Clock()
		switch {
		case len(sample.Groups)+len(sample.Dropped) > 0:
			progress = now
		case now.Sub(progress) >= l.config.StallTimeout:
			l.reissue(h)
			progress = now
		}
	}
	// The order of arrival must not show in the sums of the update.
	slices.SortFunc(h.groups, func(a, b trainable) int { return cmp.Compare(a.index, b.index) })
	return h, nil
}

func (l *Learner) enough(h *harvest) bool {
	switch {
	case len(h.groups) >= l.config.GroupsPerStep:
		return true
	case len(h.groups) > 0:
		return h.sampled >= l.config.MaxGroupsPerStep
	}
	return h.sampled+h.given >= patience*l.config.MaxGroupsPerStep
}

// take accounts for one sampled group.
func (l *Learner) take(h *harvest, group *forager.Group) {
	index := group.Credit.Index
	if group.Credit.Run != l.RunID || h.taken[index] || !l.known(index) {
		// Offered again after a restart of replay, or not ours.
		h.repeated++
		if !h.taken[index] && group.Credit.Run == l.RunID {
			l.state.consume(index)
		}
		return
	}
	h.sampled++
	t := l.prepare(&h.tally, group)
	if len(t.sequences) > 0 && l.Algorithm.Advantages(t.sequences, t.rewards) {
		h.taken[index] = true
		h.groups = append(h.groups, t)
		return
	}
	h.dropped++
	l.state.Budget.Return(index)
	l.state.consume(index)
}

// giveUp accounts for a group that replay dropped.
func (l *Learner) giveUp(h *harvest, index uint64) {
	if h.taken[index] {
		return
	}
	if l.known(index) {
		h.given++
		l.state.Budget.Return(index)
	}
	l.state.consume(index)
}

// known reports whether the credit is open. A crashed predecessor may have
// issued credits that the checkpoint does not know of. When one of their groups
// turns up the account is brought forward to it; what is then open beyond the
// window delays the next credits by as much.
func (l *Learner) known(index uint64) bool {
	if index < l.state.Budget.Issued+maxAhead {
		for l.state.Budget.Issued <= index {
			l.issue()
		}
	}
	return l.state.Budget.IsOpen(index)
}

// prepare turns a group into sequences. Rollouts that are malformed, that the
// environment failed or that have no reward are left out.
func (l *Learner) prepare(tally *rolloutTally, group *forager.Group) trainable {
	t := trainable{index: group.Credit.Index, trace: group.Credit.Trace}
	for i := range group.Rollouts {
		r := &group.Rollouts[i]
		if err := r.Validate(); err != nil {
			l.Logger.Warn("malformed rollout left out", "error", err)
			tally.unusable++
			continue
		}
		tally.add(r, l.state.Version)
		reward := l.Reward(r, l.state.Step)
		if reward.Known {
			tally.rewarded++
			tally.reward += reward.Value
			tally.intrinsic += reward.Intrinsic
		}
		if !reward.Known || r.Finish == forager.FinishRetriever || r.PolicyTokens() == 0 {
			tally.unusable++
			continue
		}
		t.rewards = append(t.rewards, reward.Value)
		t.sequences = append(t.sequences, Sequence{
			Tokens: r.Tokens, Mask: r.LossMask, Behavior: r.Logprobs,
			Advantages: make([]float32, len(r.Tokens)),
			Group:      t.index, Rollout: r,
		})
	}
	return t
}

// topUp issues the credits that are due and sends what is unsent.
func (l *Learner) topUp(ctx context.Context) error {
	window := Window(l.config.GroupsPerStep, l.config.Lag, l.config.Steps-l.state.Step)
	for l.state.Budget.Due(window) > 0 {
		l.issue()
	}
	for len(l.unsent) > 0 {
		index := l.unsent[0]
		err := l.send(ctx, l.credit(index))
		if errors.Is(err, forager.ErrFull) {
			return nil // actors have enough to do; the rest follows later
		}
		if err != nil {
			return err
		}
		l.unsent = l.unsent[1:]
	}
	return nil
}

// send hands a credit to the actors. Its trace begins here: a step issues many,
// and their lives go on after it.
func (l *Learner) send(ctx context.Context, c forager.Credit) error {
	ctx, span := l.Tracer.Start(ctx, "credit.issue", trace.WithNewRoot(), trace.WithLinks(spans.LinkTo(ctx)...),
		trace.WithSpanKind(trace.SpanKindProducer), l.position(l.state.Step+1, c.Version), trace.WithAttributes(
			attribute.Int64(forager.AttributeGroup, int64(c.Index)),
			attribute.String(forager.AttributeTask, c.TaskID),
		))
	err := l.act(ctx, "issue credit", func() error { return l.Credits.Issue(ctx, c) })
	if errors.Is(err, forager.ErrFull) { // no failure: it is sent later
		span.SetAttributes(attribute.String(forager.AttributeOutcome, "full"))
		span.End()
		return err
	}
	spans.End(span, err)
	return err
}

// issue opens the next credit. It is sent to the actors unless its group was
// rolled out before a crash.
func (l *Learner) issue() {
	index := l.state.Budget.Issue()
	switch {
	case l.gone[index]:
		l.state.Budget.Return(index)
	case !l.held[index]:
		l.unsent = append(l.unsent, index)
	}
	delete(l.gone, index)
	delete(l.held, index)
}

// reissue sends every open credit again that is not in hand. A credit may be
// lost with a broken stream; replay keeps one group of those that are not.
func (l *Learner) reissue(h *harvest) {
	l.unsent = l.unsent[:0]
	for _, index := range l.state.Budget.Open {
		if !h.taken[index] {
			l.unsent = append(l.unsent, index)
		}
	}
	l.Logger.Warn("no groups arrive: are actors and replay running? open credits are issued again",
		"waited", l.config.StallTimeout, "open", len(l.unsent), "step", l.state.Step+1)
}

func (l *Learner) credit(index uint64) forager.Credit {
	task, seed := l.Tasks.At(index)
	return forager.Credit{
		Run: l.RunID, Index: index, TaskID: task, Seed: seed, GroupSize: l.config.GroupSize,
		Version: l.state.Version, Epoch: l.Epoch,
	}
}
