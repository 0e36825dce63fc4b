package rewardsrv

import (
	"context"
	"time"

	"github.com/forager-rl/forager"
)

const (
	publishTimeout = 30 * time.Second     // of one attempt
	publishBytes   = 256 << 10            // of text in one batch: well below what a server takes as one message
	publishLinger  = 2 * time.Millisecond // a killed server loses the labels of this time
)

// publishAll publishes labels in batches until out is closed. Labels were paid
// for, so a failed batch is tried again for as long as the server runs, and for
// the grace time after that.
func (s *Server) publishAll(ctx context.Context, out <-chan forager.Annotation) {
	graceful, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(s.config.ShutdownGrace, cancel) })()
	for a := range out {
		s.publish(graceful, s.gather(a, out))
	}
}

// gather makes a batch of what comes within a moment: a message for every label
// would cost the stream, and all who follow it, several times as much work.
func (s *Server) gather(first forager.Annotation, out <-chan forager.Annotation) []forager.Annotation {
	batch, size := []forager.Annotation{first}, annotationBytes(first)
	linger := time.NewTimer(publishLinger)
	defer linger.Stop()
	for len(batch) < s.config.PublishBatch && size < publishBytes {
		select {
		case a, open := <-out:
			if !open {
				return batch
			}
			batch = append(batch, a)
			size += annotationBytes(a)
		case <-linger.C:
			return batch
		}
	}
	return batch
}

// annotationBytes is about the text of an annotation.
func annotationBytes(a forager.Annotation) int {
	j := a.Judgement
	return 256 + len(a.Rationale) + len(j.Answer) + len(j.Question) + len(j.Query) + len(j.Observation) + len(j.OtherQuery) + len(j.OtherObservation)
}

// publish goes on until the whole batch is durable or ctx is done. What failed is
// tried again in smaller parts, should it be too large for the stream.
func (s *Server) publish(ctx context.Context, batch []forager.Annotation) {
	var retry backoff
	for size := len(batch); len(batch) > 0 && ctx.Err() == nil; {
		part := batch[:min(size, len(batch))]
		limited, cancel := context.WithTimeout(ctx, publishTimeout)
		err := s.deps.Labels.Publish(limited, part)
		cancel()
		if err == nil {
			s.metrics.publish(len(part))
			batch = batch[len(part):]
			continue
		}
		if retry.first() {
			s.deps.Logger.Warn("cannot publish labels, trying again", "labels", len(part), "error", err)
		}
		size = max(1, len(part)/2)
		retry.wait(ctx)
	}
	if len(batch) > 0 {
		s.metrics.drop(dropShutdown, len(batch))
	}
}

// backoff is the waits between attempts of something that fails.
type backoff struct{ next time.Duration }

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// first says whether no attempt has failed yet.
func (b *backoff) first() bool { return b.next == 0 }

func (b *backoff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	sleep(ctx, b.next)
}

// sleep waits for d and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
