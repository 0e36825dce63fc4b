package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
)

// openBus carries a bus of its own.
func openBus(t *testing.T) *bus.Bus {
	t.Helper()
	cfg := bus.DefaultConfig()
	cfg.Run, cfg.StoreDir, cfg.Provision = "run", t.TempDir(), true
	b, err := bus.Open(t.Context(), cfg, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func creditsOn(t *testing.T, b *bus.Bus) *creditReader {
	t.Helper()
	registry := prometheus.NewRegistry()
	p := &process{run: "run", bus: b, registry: registry, unreadable: newUnreadable(registry, testLogger(t)), logger: testLogger(t)}
	r, err := p.newCreditReader(&newestEpoch{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func creditOf(epoch, index uint64) forager.Credit {
	return forager.Credit{Run: "run", Index: index, TaskID: "t", GroupSize: 2, Epoch: epoch}
}

func always() error { return nil }

func issue(t *testing.T, b *bus.Bus, credits ...forager.Credit) {
	t.Helper()
	for _, c := range credits {
		if err := (creditWriter{b}).Issue(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// played takes all credits that are there and gives those to be played.
func played(t *testing.T, r *creditReader) []forager.Credit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var list []forager.Credit
	for {
		lease, err := r.Next(ctx, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if lease != nil {
			list = append(list, lease.Credit())
			if err := lease.Done(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		info, err := r.bus.StreamInfo(ctx, bus.Credits) // the wait may have been too short
		if err != nil {
			t.Fatal(err)
		}
		if info.Messages == 0 {
			return list
		}
	}
}

// TestCreditsOfAFormerLearner: a learner that takes over withdraws what its
// predecessor issued and issues the same credits under its own epoch; what the
// predecessor issues late neither blocks them nor is played.
func TestCreditsOfAFormerLearner(t *testing.T) {
	b := openBus(t)
	r := creditsOn(t, b)
	w := creditWriter{b}
	if err := w.Withdraw(t.Context(), always); err != nil { // nothing is there
		t.Fatal(err)
	}
	issue(t, b, creditOf(1, 0), creditOf(1, 1), creditOf(1, 1))
	held, err := r.Next(t.Context(), 5*time.Second)
	if err != nil || held == nil {
		t.Fatal(held, err)
	}
	lost := errors.New("lost")
	if err := w.Withdraw(t.Context(), func() error { return lost }); !errors.Is(err, lost) {
		t.Fatalf("got %v", err)
	}
	if info, err := b.StreamInfo(t.Context(), bus.Credits); err != nil || info.Messages != 2 {
		t.Fatalf("a learner without lease withdrew: %+v, %v", info, err)
	}

	// The lease is taken while a predecessor is about to withdraw: what the
	// successor has issued meanwhile stays.
	if err := w.Withdraw(t.Context(), func() error { issue(t, b, creditOf(2, 0)); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := held.Done(); err != nil {
		t.Fatal(err)
	}
	issue(t, b, creditOf(1, 1), creditOf(2, 1), creditOf(1, 2))
	got := played(t, r)
	if len(got) != 2 || got[0] != creditOf(2, 0) || got[1] != creditOf(2, 1) {
		t.Errorf("played %+v", got)
	}
	if n := count(t, r.outdated)[""]; n != 2 {
		t.Errorf("%v outdated credits are counted, want 2", n)
	}
}

// TestUnreadableMessages: what a program with other ideas puts on the bus is
// counted and passed over.
func TestUnreadableMessages(t *testing.T) {
	b := openBus(t)
	r := creditsOn(t, b)
	for _, text := range []string{"{", "{}", `{"run":"run","task_id":"t","group_size":-1}`, `{"run":"run","task_id":"t","group_size":1000000000}`,
		`{"run":"other","task_id":"t","group_size":1}`, `{"run":"run","group_size":1}`} {
		if err := b.Publish(t.Context(), bus.Credits, "", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	issue(t, b, creditOf(1, 7))
	if got := played(t, r); len(got) != 1 || got[0].Index != 7 {
		t.Errorf("played %+v", got)
	}

	labels := labelStream{b, r.unreadable}
	for range 2 {
		if err := b.Publish(t.Context(), bus.Annotations, "", []byte("of another schema")); err != nil {
			t.Fatal(err)
		}
	}
	if err := labels.Publish(t.Context(), []forager.Annotation{{RolloutID: "run-0-0", Source: "helpful"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sequences []uint64
	err := labels.Follow(ctx, 1, func(sequence uint64, list []forager.Annotation) error {
		sequences = append(sequences, sequence)
		cancel()
		return nil
	})
	if err != nil || len(sequences) != 1 || sequences[0] != 3 {
		t.Errorf("labels at %v, %v", sequences, err)
	}

	digests := digestReader{b, r.unreadable, testLogger(t)}
	if err := b.Publish(t.Context(), bus.Digests, "", []byte("of another schema")); err != nil {
		t.Fatal(err)
	}
	if list, err := digests.Next(t.Context(), 1); err != nil || len(list) != 0 {
		t.Errorf("digests %+v, %v", list, err)
	}

	counted := count(t, r.unreadable.count)
	for stream, want := range map[string]float64{"credits": 6, "annotations": 2, "digests": 1} {
		if got := counted[stream]; got != want {
			t.Errorf("%v unreadable messages of %s are counted, want %v", got, stream, want)
		}
	}
}

// count reads counters by the value of their label.
func count(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := ""
			for _, l := range m.GetLabel() {
				label = l.GetValue()
			}
			values[label] = m.GetCounter().GetValue()
		}
	}
	return values
}
