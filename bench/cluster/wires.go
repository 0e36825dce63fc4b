package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/actor"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/replay"
)

// The wires between bus and services do what those of package node do, which
// are not for others.

const (
	runID         = "bench"
	serviceReplay = "replay"
	sampleWait    = time.Second
	sampleBytes   = 4 << 20
)

// caller implements replay.Caller and cluster.Caller.
type caller struct {
	bus     *bus.Bus
	service string
}

// Call implements replay.Caller.
func (c caller) Call(ctx context.Context, request []byte) ([]byte, error) {
	return c.bus.Request(ctx, c.service, request)
}

// creditQueue implements learner.Credits and actor.Credits.
type creditQueue struct{ bus *bus.Bus }

// Withdraw implements learner.Credits: there were no earlier learners.
func (creditQueue) Withdraw(context.Context, func() error) error { return nil }

// Issue implements learner.Credits.
func (q creditQueue) Issue(ctx context.Context, c forager.Credit) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode credit: %w", err)
	}
	return q.bus.Publish(ctx, bus.Credits, strconv.FormatUint(c.Index, 10), data)
}

// Next implements actor.Credits.
func (q creditQueue) Next(ctx context.Context, wait time.Duration) (actor.Lease, error) {
	messages, err := q.bus.Fetch(ctx, bus.Credits, 1, wait)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	l := lease{message: messages[0]}
	return l, json.Unmarshal(l.message.Data, &l.credit)
}

// lease implements actor.Lease.
type lease struct {
	credit  forager.Credit
	message *bus.Message
}

// Credit implements actor.Lease.
func (l lease) Credit() forager.Credit { return l.credit }

// KeepAlive implements actor.Lease.
func (l lease) KeepAlive() error { return l.message.Extend() }

// Done implements actor.Lease.
func (l lease) Done() error { return l.message.Ack() }

// Return implements actor.Lease.
func (l lease) Return(pause time.Duration) error { return l.message.Nak(pause) }

// sink implements actor.Sink and actor.Digests.
type sink struct{ bus *bus.Bus }

// Put implements actor.Sink.
func (s sink) Put(ctx context.Context, g forager.Group) error {
	data, err := batch.EncodeGroups([]forager.Group{g})
	if err != nil {
		return err
	}
	return s.bus.Publish(ctx, bus.Rollouts, fmt.Sprintf("%s/%d", g.Credit.Run, g.Credit.Index), data)
}

// Offer implements actor.Digests.
func (s sink) Offer(ctx context.Context, digests []forager.TurnDigest) error {
	if len(digests) == 0 {
		return nil
	}
	data, err := batch.EncodeDigests(digests)
	if err != nil {
		return err
	}
	return s.bus.Publish(ctx, bus.Digests, "", data)
}

// groups implements replay.Batches.
type groups struct{ bus *bus.Bus }

// Next implements replay.Batches.
func (g groups) Next(ctx context.Context) (replay.Delivery, error) {
	for {
		messages, err := g.bus.Fetch(ctx, bus.Rollouts, 1, time.Second)
		if err != nil {
			return replay.Delivery{}, err
		}
		if len(messages) > 0 {
			m := messages[0]
			return replay.Delivery{Data: m.Data, Ack: m.Ack, Nak: func() error { return m.Nak(time.Second) }}, nil
		}
	}
}

// labels implements replay.Labels.
type labels struct{ bus *bus.Bus }

// Follow implements replay.Labels.
func (l labels) Follow(ctx context.Context, each func([]forager.Annotation) error) error {
	return l.bus.Follow(ctx, bus.Annotations, 0, func(_ uint64, data []byte) error {
		list, err := batch.DecodeAnnotations(data)
		if err != nil {
			return err
		}
		return each(list)
	})
}

// source implements learner.Source. The model notes what it brings.
type source struct {
	client *replay.Client
	model  *clockwork
}

// Begin implements learner.Source.
func (s source) Begin(ctx context.Context, from uint64) (learner.Inventory, error) {
	i, err := s.client.Begin(ctx, from)
	return learner.Inventory(i), err
}

// Sample implements learner.Source.
func (s source) Sample(ctx context.Context, r learner.Request) (learner.Sample, error) {
	groups, drops, err := s.client.Sample(ctx, replay.Query{
		MaxGroups: r.MaxGroups, MaxBytes: sampleBytes, Version: r.Version, MaxStaleness: r.MaxStaleness,
	})
	sample := learner.Sample{Groups: groups}
	for i := range groups {
		s.model.issued[groups[i].Credit.Index] = groups[i].Credit.Version
	}
	s.model.dropped += len(drops)
	for _, d := range drops {
		sample.Dropped = append(sample.Dropped, learner.Drop{Group: d.Key, Reason: d.Reason})
	}
	return sample, err
}

// Commit implements learner.Source.
func (s source) Commit(ctx context.Context, groups []uint64) error {
	return s.client.Commit(ctx, groups, nil)
}
