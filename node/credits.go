package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/bus"
)

// creditWriter implements learner.Credits.
type creditWriter struct{ bus *bus.Bus }

// Withdraw purges the stream up to its last message, which was there while the
// lease was still held: what a successor issues comes later.
func (w creditWriter) Withdraw(ctx context.Context, held func() error) error {
	info, err := w.bus.StreamInfo(ctx, bus.Credits)
	if err == nil {
		err = held()
	}
	if err != nil || info.Messages == 0 {
		return err
	}
	return w.bus.PurgeStream(ctx, bus.Credits, info.LastSequence)
}

// Issue publishes a credit. While it waits or is held, issuing it again under the
// same epoch changes nothing; once it is done it may be issued again. One that a
// former learner issued late is another message, so that it does not keep this
// one from the queue.
func (w creditWriter) Issue(ctx context.Context, c forager.Credit) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode credit: %w", err)
	}
	return w.bus.Publish(ctx, bus.Credits, fmt.Sprintf("e%d-%d", c.Epoch, c.Index), data)
}

// newestEpoch is the highest learner epoch that this process has seen.
type newestEpoch struct{ value atomic.Uint64 }

// see reports whether an epoch is not older than the newest.
func (n *newestEpoch) see(epoch uint64) bool {
	for {
		newest := n.value.Load()
		if epoch <= newest {
			return epoch == newest
		}
		if n.value.CompareAndSwap(newest, epoch) {
			return true
		}
	}
}

// creditReader implements actor.Credits for all actors of a process.
type creditReader struct {
	bus        *bus.Bus
	run        string
	epochs     *newestEpoch
	unreadable unreadable
	outdated   prometheus.Counter
	turn       chan struct{} // who has it waits for a credit at the server, on behalf of all
	logger     *slog.Logger
}

func (p *process) newCreditReader(epochs *newestEpoch) (*creditReader, error) {
	r := &creditReader{
		bus: p.bus, run: p.run, epochs: epochs, unreadable: p.unreadable, turn: make(chan struct{}, 1), logger: p.logger,
		outdated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forager_actor_credits_outdated_total", Help: "Credits dropped because a learner that was replaced issued them.",
		}),
	}
	return r, p.registry.Register(r.outdated)
}

// Next takes one credit.
func (r *creditReader) Next(ctx context.Context, wait time.Duration) (actor.Lease, error) {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-bounded.Done():
		return nil, ctx.Err()
	}
	for {
		deadline, _ := bounded.Deadline()
		left := time.Until(deadline)
		if left <= 0 {
			return nil, ctx.Err()
		}
		messages, err := r.bus.Fetch(ctx, bus.Credits, 1, left)
		if err != nil || len(messages) == 0 {
			return nil, err
		}
		m := messages[0]
		if credit, ok := r.read(m); ok {
			return creditLease{credit, m}, nil
		}
		if err := m.Ack(); err != nil {
			r.logger.Warn("a credit that was dropped comes again", "error", err)
		}
	}
}

// read reports whether a message is a credit to be played.
func (r *creditReader) read(m *bus.Message) (c forager.Credit, ok bool) {
	err := json.Unmarshal(m.Data, &c)
	if err == nil {
		err = c.Validate(r.run)
	}
	if err != nil {
		r.unreadable.note(bus.Credits, m.Sequence, err)
		return c, false
	}
	if !r.epochs.see(c.Epoch) {
		r.outdated.Inc()
		return c, false
	}
	c.Trace = m.Trace
	return c, true
}

type creditLease struct {
	credit  forager.Credit
	message *bus.Message
}

func (l creditLease) Credit() forager.Credit           { return l.credit }
func (l creditLease) KeepAlive() error                 { return l.message.Extend() }
func (l creditLease) Done() error                      { return l.message.Ack() }
func (l creditLease) Return(pause time.Duration) error { return l.message.Nak(pause) }
