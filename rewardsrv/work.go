package rewardsrv

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// maxTries is how often a step is put to the judge before it stays unlabelled.
const maxTries = 2

// work judges one step after another until ctx is done.
func (s *Server) work(ctx context.Context, out chan<- forager.Annotation) {
	for s.pause.sleep(ctx, s.deps.Now()) {
		w, ok := s.ledger.take(ctx)
		if !ok {
			return
		}
		if s.pause.wait(s.deps.Now()) > 0 { // began while this worker waited for a step
			s.ledger.putBack(w.item.Key, false)
			continue
		}
		s.metrics.age.Observe(w.age.Seconds())
		s.process(ctx, w, out)
	}
}

// process sees to it that nobody else labels the key, or has, and labels it.
func (s *Server) process(ctx context.Context, w work, out chan<- forager.Annotation) {
	key, begun := w.item.Key, s.deps.Now()
	if o, found, err := s.indexed(key); err != nil {
		s.hold(ctx, w, fmt.Errorf("look a label up: %w", err))
		return
	} else if found {
		s.answer(key, s.ledger.found(key, o), w.source, w.grader, o, out)
		return
	}
	revision, won, err := s.claim(ctx, key, w.revision)
	switch {
	case err != nil:
		s.hold(ctx, w, err)
		return
	case !won:
		s.metrics.claims.WithLabelValues(claimLost).Inc()
		s.ledger.lost(key, revision)
		return
	}
	h := hold(ctx, s.deps.Claims, key, revision, s.config.ClaimLease, nil)
	if !s.slots.enter(ctx, s.deps.Now().Sub(begun)) {
		s.release(h)
		s.ledger.putBack(key, false)
		return
	}
	if o, waiting, ok := s.ledger.known(key); ok { // came in before the claim was won
		s.slots.leave(0)
		h.keep()
		s.answer(key, waiting, w.source, w.grader, o, out)
		return
	}
	s.label(ctx, w, h, out)
}

// hold puts a key back because of something that is not the judge's fault, after
// a wait so that this is not tried without pause.
func (s *Server) hold(ctx context.Context, w work, err error) {
	s.ledger.putBack(w.item.Key, false)
	if ctx.Err() == nil && s.pause.failed(s.deps.Now(), err) {
		s.deps.Logger.Warn("steps cannot be labelled now, trying again", "error", err)
	}
}

func (s *Server) claim(ctx context.Context, key string, over uint64) (revision uint64, won bool, err error) {
	if s.deps.Claims == nil {
		return 0, true, nil
	}
	if revision, won, err = s.deps.Claims.Claim(ctx, key, over); err != nil {
		return 0, false, fmt.Errorf("claim a step: %w", err)
	}
	if won && over != 0 {
		s.metrics.claims.WithLabelValues(claimTakenOver).Inc()
	} else if won {
		s.metrics.claims.WithLabelValues(claimWon).Inc()
	}
	return revision, won, nil
}

func (s *Server) release(h *held) {
	if err := h.release(); err != nil {
		s.deps.Logger.Debug("a claim is left to expire", "key", h.key, "error", err)
	}
}

// label puts one step to the judge, in the slot that it was given, and settles it
// or puts it back.
func (s *Server) label(ctx context.Context, w work, h *held, out chan<- forager.Annotation) {
	begun := s.deps.Now()
	judging, span := s.startSpan(ctx, w)
	verdict, took, err := s.ask(judging, w)
	for try := 1; try < maxTries && errors.Is(err, ErrUnusable) && ctx.Err() == nil; try++ {
		s.deps.Logger.Debug("no usable answer, asking again", "key", w.item.Key, "task", w.item.Task.ID, "error", err)
		cost := verdict.Judgement
		verdict, took, err = s.ask(judging, w)
		verdict.Judgement.PromptTokens += cost.PromptTokens
		verdict.Judgement.CompletionTokens += cost.CompletionTokens
	}
	endSpan(span, err)
	s.slots.leave(s.deps.Now().Sub(begun))
	key := w.item.Key
	switch {
	case err == nil || errors.Is(err, ErrUnusable) && ctx.Err() == nil:
		if s.pause.succeeded() {
			s.deps.Logger.Info("judge answers again", "judge", w.grader.Judge())
		}
		// Labels are shown and stored in many places, and whatever reaches a
		// policy's context must not carry answers.
		o := outcome{failed: err != nil, value: verdict.Value, rationale: rubric.Redact(verdict.Rationale, w.item.Task)}
		if o.failed {
			s.metrics.keysFailed.Inc()
		}
		h.keep() // until the server forgets it: the others have the label by then
		paid := judged(w.item, verdict.Judgement)
		for _, ref := range s.ledger.label(key, o) {
			a := s.annotation(key, ref, w.source, w.grader, o)
			a.Latency, a.Judgement = took, paid
			paid = forager.Judgement{} // with the first alone
			out <- a                   // the publisher reads until all producers have ended
		}
	case ctx.Err() != nil: // stopping: nobody's fault
		s.release(h) // first: whoever takes the key next makes a claim of its own
		s.ledger.putBack(key, false)
	default:
		down := s.pause.failed(s.deps.Now(), err)
		if down {
			s.deps.Logger.Warn("judge cannot be asked: pausing; learning goes on without its labels", "judge", w.grader.Judge(), "error", err)
		}
		s.release(h)
		s.ledger.putBack(key, !s.pause.isDown())
	}
}

// ask puts a step to the judge once.
func (s *Server) ask(ctx context.Context, w work) (v Verdict, took time.Duration, err error) {
	start := s.deps.Now()
	v, err = w.grader.Label(ctx, w.item)
	took = s.deps.Now().Sub(start)
	if err == nil && (math.IsNaN(v.Value) || math.IsInf(v.Value, 0)) {
		err = fmt.Errorf("value %v: %w", v.Value, ErrUnusable)
	}
	result := resultZero
	switch {
	case errors.Is(err, ErrUnusable):
		result = resultUnusable
	case err != nil:
		result = resultError
	case v.Value > 0:
		result = resultPositive
	}
	if err == nil || ctx.Err() == nil {
		s.metrics.judged(w.grader.Judge(), result, took)
	}
	return v, took, err
}

// judged adds to a judgement what was judged.
func judged(item rubric.Item, j forager.Judgement) forager.Judgement {
	j.TaskID, j.Question, j.Query, j.Observation = item.Task.ID, item.Question, item.Query, item.Observation
	if item.Other != nil {
		j.OtherQuery, j.OtherObservation = item.Other.Query, item.Other.Observation
	}
	return j
}

// answer hands a label that was known already to the turns that waited for it.
func (s *Server) answer(key string, waiting []turnRef, source string, g Grader, o outcome, out chan<- forager.Annotation) {
	for _, ref := range waiting {
		out <- s.annotation(key, ref, source, g, o)
	}
}

// annotation is the label of one turn.
func (s *Server) annotation(key string, ref turnRef, source string, g Grader, o outcome) forager.Annotation {
	a := forager.Annotation{
		RolloutID: ref.rolloutID, Turn: ref.turn, Source: source, Key: key,
		Judge: g.Judge(), Rubric: g.Rubric(), Rationale: o.rationale, Time: s.deps.Now(),
	}
	if o.failed {
		a.Rationale = "the judge gave no usable label"
		return a
	}
	a.Value = &o.value
	return a
}
