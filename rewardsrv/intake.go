package rewardsrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// read takes in digests until ctx is done.
func (s *Server) read(ctx context.Context, out chan<- forager.Annotation) {
	var retry backoff
	warned := false
	for ctx.Err() == nil {
		digests, err := s.deps.Intake.Next(ctx, s.config.IntakeBatch)
		if err != nil {
			if ctx.Err() == nil && retry.first() {
				s.deps.Logger.Warn("cannot read turn digests, trying again", "error", err)
			}
			retry.wait(ctx)
			continue
		}
		retry = backoff{}
		for _, e := range episodes(digests) {
			if err := s.acceptEpisode(e, out); err != nil && !warned {
				warned = true
				s.deps.Logger.Warn("a turn cannot be labelled; further ones are only counted", "rollout", e[0].RolloutID, "error", err)
			}
		}
	}
}

// acceptEpisode takes in the digests of one rollout. The first error says why a
// turn gets no label.
func (s *Server) acceptEpisode(e episode, out chan<- forager.Annotation) error {
	var first error
	whole := episode{} // the turns that can be labelled
	for _, d := range e {
		s.metrics.digests.Inc()
		if err := s.inspect(&d); err != nil {
			first = cmp.Or(first, err)
			continue
		}
		whole = append(whole, d)
	}
	for i, d := range whole {
		for _, j := range s.judges {
			if err := s.accept(j, whole, i, out); err != nil {
				first = cmp.Or(first, fmt.Errorf("turn %d: %w", d.Turn, err))
				break // of this turn: its task is unknown to all judges
			}
		}
	}
	return first
}

// inspect says whether a digest can be looked at, and makes its texts fit.
func (s *Server) inspect(d *forager.TurnDigest) error {
	if d.RolloutID == "" || d.TaskID == "" || d.Turn < 0 {
		s.metrics.drop(dropMalformed, 1)
		return errors.New("digest names no rollout, no task or no turn")
	}
	if size := textBytes(*d); size > s.config.MaxDigestBytes {
		s.metrics.drop(dropTooLarge, 1)
		return forager.WithHint(fmt.Errorf("digest has %d bytes, at most %d are read", size, s.config.MaxDigestBytes), "raise judge.max_digest_bytes")
	}
	clean(d)
	return nil
}

// accept answers what one judge has to say about a turn from what is known, or
// lets the turn wait for it.
func (s *Server) accept(j judgeState, e episode, i int, out chan<- forager.Annotation) error {
	d, g := e[i], j.judge.Current()
	ref := turnRef{d.RolloutID, d.Turn}
	var item rubric.Item
	switch g.Unit() {
	case rubric.Rollout:
		if i+1 < len(e) {
			return nil
		}
		item, ref.turn = rolloutItem(g, e), forager.WholeRollout
	case rubric.Pair:
		other, ok := j.pool.partner(d)
		if !ok {
			return nil
		}
		item = pairItem(g, d, other)
	default:
		item = turnItem(g, d)
	}
	s.metrics.wanted(j.judge.Source())
	o, settled, seen := s.ledger.lookup(item.Key, ref)
	if !seen {
		var err error
		if o, settled, err = s.indexed(item.Key); err != nil {
			s.metrics.drop(dropIndex, 1)
			return err
		}
	}
	if !seen && !settled {
		var err error
		if item.Task, err = s.deps.Tasks.Task(d.TaskID); err != nil {
			s.metrics.drop(dropUnknownTask, 1)
			return fmt.Errorf("find task %s: %w", d.TaskID, err)
		}
		o, settled = s.ledger.add(want{j.judge.Source(), g, item, itemBytes(item) + traceBytes(d.Trace), d.Trace}, ref)
	}
	if settled {
		s.metrics.hit()
		out <- s.annotation(item.Key, ref, j.judge.Source(), g, o)
	}
	return nil
}

// indexed looks a key up in the index and keeps what it finds at hand.
func (s *Server) indexed(key string) (o outcome, found bool, err error) {
	r, found, err := s.deps.Index.Get(key)
	if err != nil || !found {
		return outcome{}, false, err
	}
	o = outcomeOf(r)
	s.ledger.remember(key, o)
	return o, true, nil
}
