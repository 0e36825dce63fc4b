package rewardsrv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// harness counts what the ledger drops and checks its invariants.
type harness struct {
	*ledger
	dropped map[string]int
}

func newHarness(change func(*Config)) *harness {
	c := DefaultConfig()
	change(&c)
	h := &harness{dropped: map[string]int{}}
	h.ledger = newLedger(c, func(reason string, turns int) { h.dropped[reason] += turns })
	return h
}

func (h *harness) offer(key string, ref turnRef) answer {
	if a, seen := h.lookup(key, ref); seen {
		return a
	}
	return h.add(Item{Key: key, Query: key}, int64(len(key)), ref)
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
		if settled := e.state == labelled || e.state == failed; settled && (e.waiting != nil || e.item.Key != "") {
			t.Fatalf("settled key %s keeps its item or waiting turns", key)
		}
	}
	for p := h.queue.Front(); p != nil; p = p.Next() {
		e := p.Value.(*entry)
		bytes += e.bytes
		if e.state != queued || e.place != p || h.entries[e.key] != e {
			t.Fatalf("key %s is in the queue with state %d", e.key, e.state)
		}
	}
	for p := h.settled.Front(); p != nil; p = p.Next() {
		if e := p.Value.(*entry); e.state != labelled && e.state != failed || e.place != p || h.entries[e.key] != e {
			t.Fatalf("key %s is among the settled with state %d", e.key, e.state)
		}
	}
	q, f, l, x := h.sizes()
	if q != counts[queued] || f != counts[inFlight] || l != counts[labelled] || x != counts[failed] {
		t.Fatalf("sizes %d %d %d %d, states %v", q, f, l, x, counts)
	}
	if q > h.maxQueued || bytes != h.bytes || bytes > h.maxBytes || l+x > h.maxLabels {
		t.Fatalf("bounds: %d queued, %d of %d bytes, %d settled", q, bytes, h.bytes, l+x)
	}
}

// TestLedgerStates drives the ledger at random against a model: every turn that
// was offered gets its answer, waits, or was dropped and counted; no key is
// judged again after it was settled and kept.
func TestLedgerStates(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := newHarness(func(c *Config) {
			c.MaxQueued, c.MaxQueuedBytes, c.MaxWaiting, c.MaxLabels, c.OldestEvery = 12, 45, 3, 1000, rng.IntN(4)
		})
		flying, settled := []string{}, map[string]bool{}
		offered, answered := 0, 0
		for step := range 3000 {
			switch op := rng.IntN(10); {
			case op < 6:
				key := fmt.Sprint("k", rng.IntN(60))
				a := h.offer(key, turnRef{fmt.Sprint("r", step), 0})
				offered++
				if a.settled {
					answered++
				}
				if a.settled != settled[key] {
					t.Fatalf("key %s: settled %v, model says %v", key, a.settled, settled[key])
				}
			case op < 8 && h.queue.Len() > 0:
				item, _ := h.take(context.Background())
				if settled[item.Key] || slices.Contains(flying, item.Key) {
					t.Fatalf("key %s goes to the judge again", item.Key)
				}
				flying = append(flying, item.Key)
			case len(flying) > 0:
				key := flying[0]
				flying = flying[1:]
				if rng.IntN(2) == 0 {
					answered += len(h.label(key, Verdict{Value: 1}))
					settled[key] = true
				} else if waiting, final := h.giveUp(key, rng.IntN(2) == 0); final {
					answered += len(waiting)
					settled[key] = true
				}
			}
			h.audit(t)
		}
		waiting := 0
		for _, e := range h.entries {
			waiting += len(e.waiting)
		}
		lost := h.dropped[dropQueueFull] + h.dropped[dropWaitingFull]
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
		item, _ := h.take(context.Background())
		order += item.Key
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
	if waiting := h.label("k", Verdict{}); len(waiting) != 1 {
		t.Errorf("%d turns wait, want 1", len(waiting))
	}
}

func TestLabelsAreForgottenByUse(t *testing.T) {
	h := newHarness(func(c *Config) { c.MaxLabels = 2 })
	h.restore("a", &Verdict{Value: 1})
	h.restore("b", nil)
	h.restore("b", &Verdict{Value: 1}) // failed once, labelled later
	h.restore("a", nil)                // a label is not replaced by a failure
	if a := h.offer("a", turnRef{"r", 0}); !a.settled || a.failed || a.verdict.Value != 1 {
		t.Errorf("a: %+v", a)
	}
	h.restore("c", nil)
	h.audit(t)
	if _, kept := h.entries["b"]; kept {
		t.Error("the label unused for longest is kept")
	}
	if a := h.offer("c", turnRef{"r", 0}); !a.settled || !a.failed {
		t.Errorf("c: %+v", a)
	}
}

// TestMemoryBound: 100,000 distinct digests leave no more behind than the bounds say.
func TestMemoryBound(t *testing.T) {
	h := newHarness(func(c *Config) { c.MaxQueued, c.MaxLabels = 1000, 500 })
	for i := range 100_000 {
		h.offer(fmt.Sprint("key", i), turnRef{"r", i})
		if i%10 == 0 {
			item, _ := h.take(context.Background())
			h.label(item.Key, Verdict{})
		}
	}
	h.audit(t)
	if n := len(h.entries); n > 1500 {
		t.Errorf("%d entries are kept", n)
	}
	if want := 100_000 - 10_000 - h.queue.Len(); h.dropped[dropQueueFull] != want {
		t.Errorf("%d drops counted, want %d", h.dropped[dropQueueFull], want)
	}
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
