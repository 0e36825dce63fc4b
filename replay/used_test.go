package replay

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/forager-rl/forager"
)

// Rollouts are archived with what they were learned from with, whatever labels
// have come since; where that is not known, with what the table has.
func TestArchiveHoldsWhatWasUsed(t *testing.T) {
	bus, archive := newStream(), &shelf{}
	service, ctx := serving(t, bus, archive)
	bus.batches <- encode(t, small(0, 0), small(1, 0), small(2, 0))
	<-bus.acked
	late := label(0, 0, 0, "helpful", 1)
	late.Judgement.Answer = "raw"
	bus.labels <- []forager.Annotation{late, label(1, 0, 0, "helpful", 1), label(2, 0, 0, "helpful", 1)}
	bus.labels <- nil // the ones before are in the index now

	model := label(1, 1, 0, "classification", 0)
	model.Judge, model.Rubric = "model:classification", "7"
	used := map[uint64][]forager.Annotation{1: {model}, 2: nil}
	if err := NewClient(&line{Service: service}, 1, time.Second).Commit(ctx, []uint64{0, 1, 2}, used); err != nil {
		t.Fatal(err)
	}
	got := map[string][]forager.Annotation{}
	for _, g := range archive.groups {
		for _, r := range g.Rollouts {
			got[r.ID] = r.Annotations
		}
	}
	id := func(key uint64, sample int) string { return forager.RolloutID("run", key, sample) }
	if a := got[id(0, 0)]; len(a) != 1 || a[0].Source != "helpful" || a[0].Judgement.Answer != "" {
		t.Errorf("not known: %+v", a)
	}
	if a := got[id(1, 0)]; len(a) != 0 {
		t.Errorf("a label that came later is archived: %+v", a)
	}
	if a := got[id(1, 1)]; len(a) != 1 || a[0].Rubric != "7" || *a[0].Value != 0 {
		t.Errorf("used: %+v", a)
	}
	if a := got[id(2, 0)]; len(a) != 0 {
		t.Errorf("none was used: %+v", a)
	}
}

// A learner that was replaced gets nothing into the archive.
func TestReplacedLearnerArchivesNothing(t *testing.T) {
	bus, archive := newStream(), &shelf{}
	service, ctx := serving(t, bus, archive)
	bus.batches <- encode(t, small(0, 0), small(1, 0))
	<-bus.acked
	if _, err := NewClient(&line{Service: service}, 2, time.Second).Begin(ctx, 0); err != nil {
		t.Fatal(err)
	}
	err := NewClient(&line{Service: service}, 1, time.Second).Commit(ctx, []uint64{0, 1}, nil)
	if !errors.Is(err, forager.ErrFenced) || len(archive.groups) > 0 {
		t.Errorf("%v, and %d groups are in the archive", err, len(archive.groups))
	}
}

// Commit requests stay small, name every group once, and no group is split.
func TestCommitRequestsAreBounded(t *testing.T) {
	used := map[uint64][]forager.Annotation{}
	var keys []uint64
	for key := range uint64(300) {
		keys = append(keys, key)
		if key%10 == 3 {
			continue // sampled before a crash
		}
		for range 20 {
			a := label(key, 1, 0, "helpful", 1)
			a.Rationale = strings.Repeat("why ", 100)
			used[key] = append(used[key], a)
		}
	}
	used[4][0].Rationale = strings.Repeat("x", usedBytes) // more than a request takes
	parts, err := commitParts(keys, used)
	if err != nil {
		t.Fatal(err)
	}
	var sent []uint64
	for _, p := range parts {
		sent = append(sent, p.keys...)
		if data, err := json.Marshal(request{Op: opCommit, Keys: p.keys, Used: p.used}); err != nil || len(data) > 1<<20 {
			t.Errorf("a request of %d bytes, %v", len(data), err)
		}
		if known := p.used != nil; known == (p.keys[0]%10 == 3 || p.keys[0] == 4) {
			t.Errorf("groups %v: known is %v", p.keys, known)
		}
	}
	slices.Sort(sent)
	if len(parts) < 10 || !slices.Equal(sent, keys) {
		t.Errorf("%d parts name %v", len(parts), sent)
	}
	if parts, err := commitParts(nil, used); err != nil || len(parts) != 0 {
		t.Errorf("nothing to commit makes %v, %v", parts, err)
	}
}
