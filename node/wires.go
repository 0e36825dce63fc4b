package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/cluster"
	"github.com/forager-rl/forager/learner"
	"github.com/forager-rl/forager/replay"
)

// Names on the bus.
const (
	serviceCluster = bus.ServiceCluster
	serviceReplay  = bus.ServiceReplay
	topicWeights   = bus.TopicWeights
)

// serviceRetriever is the name under which retrievers announce their address.
const serviceRetriever = "retriever"

// serviceFlight is the name under which replay announces its Arrow Flight server.
const serviceFlight = "flight"

const (
	sampleBytes = 4 << 20         // of one answer of replay; several fill a step
	sampleWait  = 2 * time.Second // for groups, before the learner looks around
)

// caller carries the requests of a client over the bus.
type caller struct {
	bus     *bus.Bus
	service string
}

// Call implements cluster.Caller and replay.Caller.
func (c caller) Call(ctx context.Context, request []byte) ([]byte, error) {
	return c.bus.Request(ctx, c.service, request)
}

func clusterClient(b *bus.Bus) *cluster.Client {
	return cluster.NewClient(clusterCaller{caller{b, serviceCluster}})
}

// groupWriter implements actor.Sink.
type groupWriter struct{ bus *bus.Bus }

// Put publishes a group. The id is that of the credit, so that one played twice
// is stored once.
func (w groupWriter) Put(ctx context.Context, g forager.Group) error {
	data, err := batch.EncodeGroups([]forager.Group{g})
	if err != nil {
		return err
	}
	return w.bus.Publish(ctx, bus.Rollouts, fmt.Sprintf("%s/%d", g.Credit.Run, g.Credit.Index), data)
}

// fetch waits for messages of a stream. While the bus is away it waits for
// its return: the client reconnects by itself.
func fetch(ctx context.Context, b *bus.Bus, s bus.Stream, limit int, logger *slog.Logger) ([]*bus.Message, error) {
	for {
		messages, err := b.Fetch(ctx, s, limit, time.Second)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			logger.Warn("the bus is away", "stream", s, "error", err)
			sleep(ctx, time.Second)
			continue
		}
		if len(messages) > 0 {
			return messages, nil
		}
	}
}

// groupReader implements replay.Batches.
type groupReader struct {
	bus    *bus.Bus
	logger *slog.Logger
}

// Next waits for one batch.
func (r groupReader) Next(ctx context.Context) (replay.Delivery, error) {
	messages, err := fetch(ctx, r.bus, bus.Rollouts, 1, r.logger)
	if err != nil {
		return replay.Delivery{}, err
	}
	m := messages[0]
	return replay.Delivery{Data: m.Data, Trace: m.Trace, Ack: m.Ack, Nak: func() error { return m.Nak(time.Second) }}, nil
}

// digestWriter implements actor.Digests.
type digestWriter struct{ bus *bus.Bus }

// Offer publishes digests; the stream drops its oldest when full.
func (w digestWriter) Offer(ctx context.Context, digests []forager.TurnDigest) error {
	if len(digests) == 0 {
		return nil
	}
	data, err := batch.EncodeDigests(digests)
	if err != nil {
		return err
	}
	return w.bus.Publish(ctx, bus.Digests, "", data)
}

// digestReader implements rewardsrv.Intake.
type digestReader struct {
	bus        *bus.Bus
	unreadable unreadable
	logger     *slog.Logger
}

// Next takes some digests. They are acknowledged at once: a lost digest costs a
// label, nothing more.
func (r digestReader) Next(ctx context.Context, most int) ([]forager.TurnDigest, error) {
	messages, err := fetch(ctx, r.bus, bus.Digests, max(1, most/16), r.logger)
	if err != nil {
		return nil, err
	}
	var list []forager.TurnDigest
	for _, m := range messages {
		digests, err := batch.DecodeDigests(m.Data)
		if err != nil {
			r.unreadable.note(bus.Digests, m.Sequence, err)
		}
		for i := range digests {
			digests[i].Trace = m.Trace
		}
		list = append(list, digests...)
		if err := m.Ack(); err != nil {
			r.logger.Warn("digests may be labelled again", "error", err)
		}
	}
	return list, nil
}

// annotations implements replay.Labels.
type annotations struct {
	bus        *bus.Bus
	unreadable unreadable
}

// Follow reads every annotation of the run, also those to come.
func (a annotations) Follow(ctx context.Context, use func([]forager.Annotation) error) error {
	return labelStream(a).Follow(ctx, 0, func(_ uint64, list []forager.Annotation) error { return use(list) })
}

// Each reads every annotation of the run so far.
func (a annotations) Each(ctx context.Context, use func(forager.Annotation) error) error {
	return labelStream(a).Replay(ctx, 0, func(_ uint64, list []forager.Annotation) error {
		for _, one := range list {
			if err := use(one); err != nil {
				return err
			}
		}
		return nil
	})
}

// labelStream implements rewardsrv.Labels. What cannot be read stays in the
// stream, for a program that can.
type labelStream struct {
	bus        *bus.Bus
	unreadable unreadable
}

// Publish makes annotations durable.
func (l labelStream) Publish(ctx context.Context, list []forager.Annotation) error {
	data, err := batch.EncodeAnnotations(list)
	if err != nil {
		return err
	}
	return l.bus.Publish(ctx, bus.Annotations, "", data)
}

// Last is the sequence of the newest message.
func (l labelStream) Last(ctx context.Context) (uint64, error) {
	info, err := l.bus.StreamInfo(ctx, bus.Annotations)
	return info.LastSequence, err
}

// Replay reads what is there now, from a sequence on.
func (l labelStream) Replay(ctx context.Context, from uint64, use func(uint64, []forager.Annotation) error) error {
	return l.bus.Replay(ctx, bus.Annotations, from, l.decoded(use))
}

// Follow reads on as annotations come.
func (l labelStream) Follow(ctx context.Context, from uint64, use func(uint64, []forager.Annotation) error) error {
	return l.bus.Follow(ctx, bus.Annotations, from, l.decoded(use))
}

func (l labelStream) decoded(use func(uint64, []forager.Annotation) error) func(uint64, []byte) error {
	return func(sequence uint64, data []byte) error {
		list, err := batch.DecodeAnnotations(data)
		if err != nil {
			l.unreadable.note(bus.Annotations, sequence, err)
			return nil
		}
		return use(sequence, list)
	}
}

// archive implements replay.Archive and flight.Source: groups that were learned from,
// as Arrow IPC files for people, one file for each commit of the learner.
type archive struct{ folder string }

// Put writes a file named after its first group, so that the same groups put
// again replace themselves.
func (a archive) Put(groups []forager.Group) error {
	if len(groups) == 0 {
		return nil
	}
	first := groups[0].Credit.Index
	for _, g := range groups[1:] {
		first = min(first, g.Credit.Index)
	}
	return batch.WriteFile(filepath.Join(a.folder, fmt.Sprintf("groups-%08d.arrow", first)), groups)
}

// Each hands over the groups that are there when it is called, file after file.
func (a archive) Each(ctx context.Context, from uint64, yield func([]forager.Group) error) error {
	paths, err := filepath.Glob(filepath.Join(a.folder, "groups-*.arrow")) // sorted
	if err != nil {
		return err
	}
	for _, path := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		groups, err := batch.ReadFile(path)
		if err != nil {
			return err
		}
		groups = slices.DeleteFunc(groups, func(g forager.Group) bool { return g.Credit.Index < from })
		if err := yield(groups); err != nil {
			return err
		}
	}
	return nil
}

// source implements learner.Source. It has groups scored when they are sampled,
// and what they were learned from with archived when they are committed.
type source struct {
	client *replay.Client
	scorer *scorer                         // nil scores nothing
	used   map[uint64][]forager.Annotation // of the groups sampled and not committed
}

// Begin implements learner.Source.
func (s *source) Begin(ctx context.Context, from uint64) (learner.Inventory, error) {
	i, err := s.client.Begin(ctx, from)
	clear(s.used) // what is not committed is sampled again
	return learner.Inventory(i), err
}

// Sample implements learner.Source.
func (s *source) Sample(ctx context.Context, r learner.Request) (learner.Sample, error) {
	groups, drops, err := s.client.Sample(ctx, replay.Query{MaxGroups: r.MaxGroups, MaxBytes: sampleBytes, Version: r.Version, MaxStaleness: r.MaxStaleness})
	s.scorer.annotate(groups)
	for i := range groups {
		var used []forager.Annotation
		for j := range groups[i].Rollouts {
			used = append(used, groups[i].Rollouts[j].Annotations...)
		}
		s.used[groups[i].Credit.Index] = used
	}
	sample := learner.Sample{Groups: groups}
	for _, d := range drops {
		sample.Dropped = append(sample.Dropped, learner.Drop{Group: d.Key, Reason: d.Reason})
	}
	return sample, err
}

// Commit implements learner.Source.
func (s *source) Commit(ctx context.Context, groups []uint64) error {
	err := s.client.Commit(ctx, groups, s.used)
	if err == nil {
		for _, group := range groups {
			delete(s.used, group)
		}
	}
	return err
}

// retryUntil repeats a call with short pauses until it works, ctx ends or the
// time is over. It is for the moments in which processes start in any order.
func retryUntil(ctx context.Context, what string, limit time.Duration, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := call(bounded)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-bounded.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("no answer")
			}
			return fmt.Errorf("%s: given up after %s: %w", what, limit, err)
		}
	}
}
