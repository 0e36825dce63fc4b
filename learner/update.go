package learner

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/spans"
)

// update learns from a step's groups. updated is false when no gradient was
// finite, or there were no groups.
func (l *Learner) update(ctx context.Context, h *harvest, metrics *StepMetrics) (updated bool, err error) {
	if len(h.groups) == 0 {
		return false, nil
	}
	_, span := l.Tracer.Start(ctx, "learner.update", trace.WithLinks(h.links()...), l.position(l.state.Step+1, l.state.Version),
		trace.WithAttributes(attribute.Int(forager.AttributeGroups, len(h.groups))))
	defer func() { spans.End(span, err) }()
	if l.config.ShuffleRewards {
		l.shuffleRewards(h.groups)
	}
	var sequences []Sequence
	for _, g := range h.groups {
		sequences = append(sequences, g.sequences...)
	}
	if l.Algorithm.NeedsReference() {
		if err := l.score(sequences); err != nil {
			return false, err
		}
	}
	var terms Terms
	updates := 0
	for epoch := range l.config.Epochs {
		for _, batch := range l.miniBatches(sequences, epoch) {
			t, err := l.accumulate(batch)
			if err != nil {
				return false, err
			}
			terms.Add(t)
			updates++
			norm, finite := l.Model.Update(float32(metrics.LearningRate))
			if !finite {
				l.state.NonFinite++
				l.Logger.Warn("gradient is not finite, update skipped", "step", l.state.Step+1)
				continue
			}
			updated = true
			metrics.GradNorm = max(metrics.GradNorm, norm)
		}
	}
	metrics.TrainedTokens = tokens(sequences) * l.config.Epochs
	l.state.Trained += uint64(metrics.TrainedTokens)
	terms.fill(metrics, updates)
	return updated, nil
}

// accumulate adds up the gradients of one optimiser update.
func (l *Learner) accumulate(batch []Sequence) (Terms, error) {
	policyTokens := 0
	for i := range batch {
		policyTokens += batch[i].PolicyTokens()
	}
	var sum Terms
	for _, micro := range microBatches(batch, l.config.MicroBatchTokens) {
		terms := make([]Terms, len(micro)) // one each: the model may call concurrently
		err := l.Model.Accumulate(micro, func(i int, logp, grad []float32) {
			clear(grad)
			terms[i] = l.Algorithm.Loss(&micro[i], logp, float64(policyTokens), grad)
		})
		if err != nil {
			return Terms{}, fmt.Errorf("accumulate gradients: %w", err)
		}
		for _, t := range terms {
			sum.Add(t)
		}
	}
	return sum, nil
}

// score fills in the log-probabilities under the reference policy.
func (l *Learner) score(sequences []Sequence) error {
	for _, micro := range microBatches(sequences, l.config.MicroBatchTokens) {
		logprobs, err := l.Reference.Logprobs(micro)
		if err != nil {
			return fmt.Errorf("score with the reference policy: %w", err)
		}
		for i := range micro {
			micro[i].Reference = logprobs[i]
		}
	}
	return nil
}

// miniBatches splits the sequences at random into the step's updates; one
// mini-batch keeps their order.
func (l *Learner) miniBatches(sequences []Sequence, epoch int) [][]Sequence {
	n := min(l.config.MiniBatches, len(sequences))
	if n <= 1 {
		return [][]Sequence{sequences}
	}
	shuffled := slices.Clone(sequences)
	draw := l.state.Step*uint64(l.config.Epochs) + uint64(epoch)
	random(l.Seed, drawMiniBatches, draw).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	batches := make([][]Sequence, n)
	for i := range batches {
		batches[i] = shuffled[i*len(shuffled)/n : (i+1)*len(shuffled)/n]
	}
	return batches
}

// shuffleRewards deals the step's rewards out again at random and computes the
// advantages from them: the same data without anything to learn.
func (l *Learner) shuffleRewards(groups []trainable) {
	var rewards []float64
	for _, g := range groups {
		rewards = append(rewards, g.rewards...)
	}
	random(l.Seed, drawShuffle, l.state.Step).Shuffle(len(rewards), func(i, j int) {
		rewards[i], rewards[j] = rewards[j], rewards[i]
	})
	for _, g := range groups {
		n := copy(g.rewards, rewards)
		rewards = rewards[n:]
		l.Algorithm.Advantages(g.sequences, g.rewards)
	}
}

// microBatches orders the sequences by length, so that padding is small, and
// cuts them into runs of at most limit tokens. The runs alias sequences.
func microBatches(sequences []Sequence, limit int) [][]Sequence {
	slices.SortStableFunc(sequences, func(a, b Sequence) int { return len(a.Tokens) - len(b.Tokens) })
	var runs [][]Sequence
	from, size := 0, 0
	for i := range sequences {
		n := len(sequences[i].Tokens)
		if i > from && size+n > limit {
			runs = append(runs, sequences[from:i])
			from, size = i, 0
		}
		size += n
	}
	if from < len(sequences) {
		runs = append(runs, sequences[from:])
	}
	return runs
}

func tokens(sequences []Sequence) int {
	n := 0
	for i := range sequences {
		n += len(sequences[i].Tokens)
	}
	return n
}
