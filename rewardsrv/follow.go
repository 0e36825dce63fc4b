package rewardsrv

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/labelstore"
)

// catchUpRecords is how many labels go into the index at one time while it is
// brought up to the stream.
const catchUpRecords = 4096

// catchUp brings the index up to the end of the stream, so that nothing is paid
// for twice.
func (s *Server) catchUp(ctx context.Context) error {
	sequence, err := s.deps.Index.Sequence()
	if err != nil {
		return err
	}
	last, err := s.deps.Labels.Last(ctx)
	if err != nil {
		return fmt.Errorf("find the end of the stream: %w", err)
	}
	if sequence > last {
		s.deps.Logger.Warn("the label index is ahead of the stream and so belongs to another one: it is built anew", "index", sequence, "stream", last)
		if err := s.deps.Index.Reset(); err != nil {
			return err
		}
		sequence = 0
	}
	begun, read := s.deps.Now(), 0
	var records []labelstore.Record
	store := func() error {
		err := s.deps.Index.Put(sequence, records)
		records = records[:0]
		return err
	}
	err = s.deps.Labels.Replay(ctx, sequence+1, func(seq uint64, list []forager.Annotation) error {
		sequence, read = seq, read+len(list)
		if records = append(records, recordsOf(list)...); len(records) >= catchUpRecords {
			return store()
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if err := store(); err != nil {
		return err
	}
	keys, err := s.deps.Index.Len()
	if err == nil && keys > 0 {
		s.deps.Logger.Info("label index is up to date", "keys", keys, "annotations_read", read, "took", s.deps.Now().Sub(begun).Round(time.Millisecond))
	}
	return err
}

// follow enters what is published, here and elsewhere, until ctx is done, and
// answers the turns that waited for another server.
func (s *Server) follow(ctx context.Context, out chan<- forager.Annotation) {
	var retry backoff
	for ctx.Err() == nil {
		sequence, err := s.deps.Index.Sequence()
		if err == nil {
			err = s.deps.Labels.Follow(ctx, sequence+1, func(seq uint64, list []forager.Annotation) error {
				retry = backoff{}
				return s.learn(seq, list, out)
			})
		}
		if ctx.Err() != nil {
			return
		}
		if retry.first() {
			s.deps.Logger.Warn("cannot follow the labels that are published, trying again", "error", err)
		}
		retry.wait(ctx)
	}
}

// learn enters one message: the index first, so that a key that leaves memory is
// found there.
func (s *Server) learn(sequence uint64, list []forager.Annotation, out chan<- forager.Annotation) error {
	records := recordsOf(list)
	if err := s.deps.Index.Put(sequence, records); err != nil {
		return err
	}
	for _, r := range records {
		o := outcomeOf(r)
		waiting, source, grader := s.ledger.learn(r.Key, o)
		if len(waiting) > 0 {
			s.metrics.answered(len(waiting))
			s.answer(r.Key, waiting, source, grader, o, out)
		}
	}
	return nil
}

// recordsOf gives the keys of a message, each once.
func recordsOf(list []forager.Annotation) []labelstore.Record {
	records := make([]labelstore.Record, 0, len(list))
	seen := make(map[string]bool, len(list))
	for _, a := range list {
		if a.Key == "" || a.Value != nil && (math.IsNaN(*a.Value) || math.IsInf(*a.Value, 0)) {
			continue
		}
		if a.Value != nil && seen[a.Key] {
			continue
		}
		seen[a.Key] = a.Value != nil // a failure does not hide a label after it
		records = append(records, labelstore.Record{
			Key: a.Key, Value: a.Value, Rationale: a.Rationale, Judge: a.Judge, Rubric: a.Rubric, Time: a.Time,
		})
	}
	return records
}

func outcomeOf(r labelstore.Record) outcome {
	if r.Value == nil {
		return outcome{failed: true}
	}
	return outcome{value: *r.Value, rationale: r.Rationale}
}

// expire looks for keys whose holder elsewhere is gone, until ctx is done.
func (s *Server) expire(ctx context.Context) {
	for sleep(ctx, s.config.ClaimLease/8) {
		if n := s.ledger.expire(s.config.ClaimLease); n > 0 {
			s.metrics.expired.Add(float64(n))
			s.deps.Logger.Warn("another reward server left steps unlabelled: they are taken over", "steps", n, "lease", s.config.ClaimLease)
		}
	}
}
