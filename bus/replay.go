package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Replay reads a stream in order from a sequence number (1 is the first) up to
// the message that is the last one now, and returns. Messages stay in the
// stream. An error of fn ends it and is returned as it is.
func (b *Bus) Replay(ctx context.Context, s Stream, from uint64, fn func(seq uint64, data []byte) error) error {
	info, err := b.StreamInfo(ctx, s)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	if info.Messages == 0 || from > info.LastSequence {
		return nil
	}
	r := reading{bus: b, stream: s, next: from, fn: fn}
	if err := r.until(ctx, info.LastSequence); err != nil {
		if r.stopped {
			return err
		}
		return fmt.Errorf("replay %s from %d, at %d: %w", s, from, r.next, err)
	}
	return nil
}

// Follow reads a stream like Replay and goes on with new messages as they come,
// also after the connection was lost for a while, until ctx ends (nil) or fn
// returns an error.
func (b *Bus) Follow(ctx context.Context, s Stream, from uint64, fn func(seq uint64, data []byte) error) error {
	r := reading{bus: b, stream: s, next: from, fn: fn, patient: true}
	for {
		err := r.until(ctx, math.MaxUint64)
		switch {
		case ctx.Err() != nil && !r.stopped:
			return nil
		case r.stopped:
			return err
		case b.conn.IsClosed():
			return fmt.Errorf("follow %s: %w", s, nats.ErrConnectionClosed)
		}
		b.log.Warn("bus: following a stream was interrupted, trying again", "stream", string(s), "next", r.next, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// reading is where a reader of a stream stands.
type reading struct {
	bus     *Bus
	stream  Stream
	next    uint64 // sequence number to go on with
	fn      func(seq uint64, data []byte) error
	patient bool // waits for messages that are yet to be published
	stopped bool // fn returned an error
}

// until reads up to and including a sequence number, through a consumer of its
// own that the server drops when the reader is gone.
func (r *reading) until(ctx context.Context, last uint64) error {
	create, cancel := r.bus.bounded(ctx)
	defer cancel()
	consumer, err := r.bus.js.OrderedConsumer(create, r.bus.names.stream(r.stream), jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(r.next, 1),
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for r.next <= last {
		msg, err := r.wait(ctx, messages)
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		seq := meta.Sequence.Stream
		if seq > last { // the rest of the range was removed meanwhile
			return nil
		}
		if !r.bus.believes(msg.Subject(), msg.Headers()) {
			r.bus.log.Warn("bus: a message that nobody may publish was passed over", "subject", msg.Subject(), "role", msg.Headers().Get(roleHeader))
		} else if err := r.fn(seq, msg.Data()); err != nil {
			r.stopped = true
			return err
		}
		r.next = seq + 1
		if meta.NumPending == 0 && !r.patient {
			return nil
		}
	}
	return nil
}

func (r *reading) wait(ctx context.Context, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	if r.patient {
		return messages.Next(jetstream.NextContext(ctx))
	}
	bounded, cancel := r.bus.bounded(ctx)
	defer cancel()
	msg, err := messages.Next(jetstream.NextContext(bounded))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, fmt.Errorf("no message within %v: %w", r.bus.cfg.Timeout, err)
	}
	return msg, err
}
