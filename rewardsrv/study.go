package rewardsrv

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/forager-rl/forager/rewardsrv/rewardmodel"
)

// study is a trainer at work. It belongs to one goroutine.
type study struct {
	*distiller
	trainer   *rewardmodel.Trainer
	matches   *matches
	sequence  uint64 // of the last message that the trainer has learned from
	published uint64 // version
	shown     time.Time
	saved     time.Time
}

// learn trains on what arrives until ctx is done or nothing can arrive any more.
func (s *study) learn(ctx context.Context, arrived <-chan lessons) error {
	for {
		due := time.NewTimer(max(0, s.config.PublishInterval-s.now().Sub(s.shown)))
		if !s.trainer.Ready() || s.trainer.Stats().Steps <= s.published {
			due.Stop() // nothing to show
		}
		select {
		case <-ctx.Done():
			due.Stop()
			return nil
		case <-due.C:
		case l, open := <-arrived:
			due.Stop()
			if !open {
				return nil
			}
			if !s.take(ctx, l, arrived) {
				return nil
			}
		}
		if s.now().Sub(s.shown) >= s.config.PublishInterval {
			s.publish(ctx)
		}
		if s.now().Sub(s.saved) >= saveInterval {
			s.save()
		}
	}
}

// take learns from what is there now as one arrival, and rests in proportion, so
// that training leaves the machine to others. It is false when ctx ended.
func (s *study) take(ctx context.Context, l lessons, arrived <-chan lessons) bool {
	n := s.add(l)
	for more := true; more && n < maxArrival; {
		select {
		case l, open := <-arrived:
			if more = open; open {
				n += s.add(l)
			}
		default:
			more = false
		}
	}
	begun := s.now()
	if s.trainer.Train(n) == 0 {
		return true
	}
	stats := s.trainer.Stats()
	s.metrics.labels.Set(float64(stats.Labels))
	s.metrics.steps.Set(float64(stats.Steps))
	s.metrics.accuracy.Set(stats.Accuracy)
	s.metrics.loss.Set(stats.Loss)
	worked := s.now().Sub(begun)
	return sleep(ctx, min(time.Duration(float64(worked)*(1/s.config.MaxShare-1)), time.Minute))
}

// add shows the labels of a message to the trainer and counts what they teach.
func (s *study) add(l lessons) (n int) {
	for _, a := range l.labels {
		j := a.Judgement
		e := rewardmodel.Example{Question: j.Question, Query: j.Query, Observation: j.Observation}
		switch {
		case s.pairs:
			s.trainer.AddPair(e, rewardmodel.Example{Question: j.Question, Query: j.OtherQuery, Observation: j.OtherObservation}, *a.Value)
			n++
		case s.config.Kind == rewardmodel.Ranking:
			if other, ok := s.matches.match(j.TaskID, e, *a.Value); ok {
				s.trainer.AddPair(e, other.example, preference(*a.Value, other.value))
				n++
			}
		default:
			s.trainer.Add(e, *a.Value)
			n++
		}
	}
	s.sequence = l.sequence
	return n
}

func preference(a, b float64) float64 {
	if a > b {
		return 1
	}
	return 0
}

// publish shows a model that has learned something since the last one.
func (s *study) publish(ctx context.Context) {
	if !s.trainer.Ready() || s.trainer.Stats().Steps <= s.published {
		return
	}
	s.shown = s.now()
	m := s.trainer.Snapshot()
	bounded, cancel := context.WithTimeout(ctx, distilTimeout)
	defer cancel()
	if err := s.models.Publish(bounded, m.Version(), string(m.Kind()), m.Encode()); err != nil {
		if ctx.Err() == nil {
			s.metrics.published.WithLabelValues("error").Inc()
			s.logger.Warn("the reward model was not published", "version", m.Version(), "error", err)
		}
		return
	}
	s.published = m.Version()
	s.metrics.published.WithLabelValues("ok").Inc()
	s.metrics.version.Set(float64(m.Version()))
	s.logger.Debug("reward model published", "version", m.Version(), "labels", m.Labels())
}

// save keeps the trainer's state beside the index.
func (s *study) save() {
	s.saved = s.now()
	if err := s.index.PutTrainer(s.sequence, s.trainer.State()); err != nil {
		s.logger.Warn("the reward model's trainer was not saved: after a restart it learns again from the stream", "error", err)
	}
}

// Bounds of what preferences are made from.
const (
	matchTasks = 2048
	matchTurns = 8 // of one task
)

// matches makes preferences out of labels of single turns: two turns of one
// question whose labels differ.
type matches struct {
	rng   *rand.Rand
	tasks *simplelru.LRU[string, []matched]
}

type matched struct {
	example rewardmodel.Example
	value   float64
}

func newMatches(rng *rand.Rand) *matches {
	tasks, err := simplelru.NewLRU[string, []matched](matchTasks, nil)
	if err != nil {
		panic(err) // the size is a constant above 0
	}
	return &matches{rng, tasks}
}

// match gives an earlier turn of the same task with another label, drawn at
// random, if there is one, and keeps this turn for later ones.
func (m *matches) match(task string, e rewardmodel.Example, value float64) (other matched, ok bool) {
	kept, _ := m.tasks.Get(task)
	seen := 0
	for _, k := range kept {
		if k.value != value {
			if seen++; m.rng.IntN(seen) == 0 {
				other, ok = k, true
			}
		}
	}
	if len(kept) < matchTurns {
		kept = append(kept, matched{e, value})
	} else {
		kept[m.rng.IntN(len(kept))] = matched{e, value}
	}
	m.tasks.Add(task, kept)
	return other, ok
}
