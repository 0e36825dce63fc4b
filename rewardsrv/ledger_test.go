package rewardsrv

import (
	"container/list"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/forager-rl/forager/rewardsrv/rubric"
)

// harness counts what the ledger drops and checks its invariants.
type harness struct {
	*ledger
	dropped map[string]int
	clock   time.Time
}

func newHarness(change func(*Config)) *harness {
	c := DefaultConfig()
	change(&c)
	h := &harness{dropped: map[string]int{}, clock: time.Unix(0, 0)}
	l, err := newLedger(c, func() int { return c.MaxInFlight }, func(reason string, turns int) { h.dropped[reason] += turns }, func() time.Time { return h.clock })
	if err != nil {
		panic(err)
	}
	h.ledger = l
	return h
}

// offer is what the server does with a digest, but for the index.
func (h *harness) offer(key string, ref turnRef) (o outcome, settled bool) {
	if o, settled, seen := h.lookup(key, ref); seen {
		return o, settled
	}
	return h.add(want{item: rubric.Item{Key: key, Step: rubric.Step{Query: key}}, bytes: int64(len(key))}, ref)
}

// audit checks that every key is in exactly one state and one place, and that
// every bound holds.
func (h *harness) audit(t *testing.T) {
	t.Helper()
	counts := map[state]int{}
	var bytes int64
	for key, e := range h.entries {
		counts[e.state]++
		if key != e.key || len(e.waiting) > h.maxWaiting {
			t.Fatalf("entry %s is kept as %s with %d waiting", e.key, key, len(e.waiting))
		}
		if h.settled.Contains(key) {
			t.Fatalf("key %s is settled and in state %d", key, e.state)
		}
		if settled := e.state == labelled || e.state == failed; settled && (e.waiting != nil || e.item.Key != "") {
			t.Fatalf("settled key %s keeps its item or waiting turns", key)
		}
	}
	for want, l := range map[state]*list.List{queued: h.queue, elsewhere: h.away} {
		for p := l.Front(); p != nil; p = p.Next() {
			e := p.Value.(*entry)
			bytes += e.bytes
			if e.state != want || e.place != p || h.entries[e.key] != e {
				t.Fatalf("key %s is in the list of state %d with state %d", e.key, want, e.state)
			}
		}
	}
	z := h.sizes()
	if z.queued != counts[queued] || z.inFlight != counts[inFlight] || z.elsewhere != counts[elsewhere] || z.unconfirmed != counts[labelled]+counts[failed] {
		t.Fatalf("sizes %+v, states %v", z, counts)
	}
	if over := z.queued+z.elsewhere > h.maxQueued || bytes > h.maxBytes; over && z.queued+z.elsewhere > 1 || bytes != h.bytes || h.settled.Len() > 1000 {
		t.Fatalf("bounds: %+v, %d bytes", z, bytes)
	}
}

// TestLedgerStates drives the ledger at random against a model: every turn that
// was offered gets its answer, waits, or was dropped and counted; no key is
// judged again after it was settled.
func TestLedgerStates(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := newHarness(func(c *Config) {
			c.MaxQueued, c.MaxQueuedBytes, c.MaxWaiting, c.MaxLabels, c.OldestEvery, c.MaxUnpublished = 12, 1100, 3, 1000, rng.IntN(4), 1000
		})
		var flying, published []string
		settled := map[string]bool{}
		offered, answered := 0, 0
		for step := range 3000 {
			h.clock = h.clock.Add(time.Second)
			switch op := rng.IntN(14); {
			case op < 6:
				key := fmt.Sprint("k", rng.IntN(60))
				_, known := h.offer(key, turnRef{fmt.Sprint("r", step), 0})
				offered++
				if known {
					answered++
				}
				if known != settled[key] {
					t.Fatalf("key %s: settled %v, model says %v", key, known, settled[key])
				}
			case op < 8 && h.queue.Len() > 0 && h.inFlight < h.limit():
				w, _ := h.take(context.Background())
				key := w.item.Key
				if settled[key] || slices.Contains(flying, key) {
					t.Fatalf("key %s goes to the judge again", key)
				}
				if rng.IntN(3) == 0 { // another server holds it
					h.lost(key, uint64(rng.IntN(3)))
					break
				}
				flying = append(flying, key)
			case op < 11 && len(flying) > 0:
				key := flying[0]
				flying = flying[1:]
				if rng.IntN(3) > 0 {
					answered += len(h.label(key, outcome{value: 1, failed: rng.IntN(4) == 0}))
					settled[key] = true
					published = append(published, key)
				} else {
					h.putBack(key, rng.IntN(2) == 0)
				}
			case op == 11 && len(published) > 0:
				h.learn(published[0], outcome{value: 1})
				published = published[1:]
			case op == 12: // another server's label comes in
				key := fmt.Sprint("k", rng.IntN(60))
				if slices.Contains(flying, key) || settled[key] || h.entries[key] == nil {
					break
				}
				waiting, _, _ := h.learn(key, outcome{})
				answered += len(waiting)
				settled[key] = true
			case op == 13:
				h.expire(30 * time.Second)
			}
			h.audit(t)
		}
		waiting := 0
		for _, e := range h.entries {
			waiting += len(e.waiting)
		}
		lost := h.dropped[dropQueueFull] + h.dropped[dropWaitingFull] + h.dropped[dropJudgeError]
		if offered != answered+waiting+lost {
			t.Fatalf("seed %d: %d turns offered; %d answered, %d wait, %d dropped", seed, offered, answered, waiting, lost)
		}
	}
}

func TestOrderIsNewestFirstWithAgeFloor(t *testing.T) {
	h := newHarness(func(c *Config) { c.OldestEvery = 4 })
	for i := range 8 {
		h.offer(fmt.Sprint(i), turnRef{"r", i})
	}
	h.offer("2", turnRef{"s", 0}) // a fresh rollout wants it: newest again
	var order string
	for range 8 {
		w, _ := h.take(context.Background())
		order += w.item.Key
	}
	if order != "27605431" {
		t.Errorf("order %s", order)
	}
}

func TestSameTurnWaitsOnce(t *testing.T) {
	h := newHarness(func(*Config) {})
	h.offer("k", turnRef{"r", 1})
	h.offer("k", turnRef{"r", 1})
	if _, ok := h.take(context.Background()); !ok {
		t.Fatal("nothing to take")
	}
	if waiting := h.label("k", outcome{}); len(waiting) != 1 {
		t.Errorf("%d turns wait, want 1", len(waiting))
	}
}

// TestLabelFromElsewhere: what another server publishes about a key in flight
// settles it, before the judge is asked and after.
func TestLabelFromElsewhere(t *testing.T) {
	h := newHarness(func(*Config) {})
	take := func(key string) {
		t.Helper()
		h.offer(key, turnRef{"r", 1})
		if w, _ := h.take(context.Background()); w.item.Key != key {
			t.Fatalf("took %s, want %s", w.item.Key, key)
		}
	}
	take("before")
	if _, _, ok := h.known("before"); ok {
		t.Error("known without a label")
	}
	h.learn("before", outcome{value: 0.5})
	if o, waiting, ok := h.known("before"); !ok || o.value != 0.5 || len(waiting) != 1 {
		t.Errorf("before: %+v %v %v", o, waiting, ok)
	}
	take("after")
	h.learn("after", outcome{value: 0.5})
	h.label("after", outcome{value: 1})
	take("away")
	h.learn("away", outcome{value: 0.5})
	h.lost("away", 7) // is in the index by now: the next worker finds it there
	if w, _ := h.take(context.Background()); w.item.Key != "away" {
		t.Errorf("took %s", w.item.Key)
	}
	if waiting := h.found("away", outcome{value: 0.5}); len(waiting) != 1 {
		t.Errorf("%d wait", len(waiting))
	}
	for _, key := range []string{"before", "after", "away"} {
		if o, settled := h.offer(key, turnRef{"s", 1}); !settled || o.value != 0.5 {
			t.Errorf("%s: %+v %v", key, o, settled)
		}
	}
	h.audit(t)
}

// TestLease: a key of another server is queued when its claim is too old, with
// the revision to take over.
func TestLease(t *testing.T) {
	h := newHarness(func(*Config) {})
	h.offer("k", turnRef{"r", 1})
	w, _ := h.take(context.Background())
	h.lost(w.item.Key, 9)
	h.clock = h.clock.Add(10 * time.Second)
	if n := h.expire(11 * time.Second); n != 0 || h.queue.Len() != 0 {
		t.Errorf("%d expired too early", n)
	}
	h.clock = h.clock.Add(2 * time.Second)
	if n := h.expire(11 * time.Second); n != 1 {
		t.Errorf("%d expired", n)
	}
	if w, _ := h.take(context.Background()); w.revision != 9 {
		t.Errorf("revision %d", w.revision)
	}
	h.audit(t)
}

func TestTakeEndsWithContext(t *testing.T) {
	h := newHarness(func(*Config) {})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan bool)
	go func() { _, ok := h.take(ctx); done <- ok }()
	cancel()
	if <-done {
		t.Error("took a step from an empty queue")
	}
}

func median(list []time.Duration) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}
