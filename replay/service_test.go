package replay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
)

// stream is a bus in memory.
type stream struct {
	batches chan []byte
	acked   chan struct{}
	labels  chan []forager.Annotation
}

func newStream() *stream {
	return &stream{make(chan []byte), make(chan struct{}, 100), make(chan []forager.Annotation)}
}

func (s *stream) Next(ctx context.Context) (Delivery, error) {
	select {
	case data := <-s.batches:
		return Delivery{Data: data, Ack: func() error { s.acked <- struct{}{}; return nil }, Nak: func() error { return nil }}, nil
	case <-ctx.Done():
		return Delivery{}, ctx.Err()
	}
}

func (s *stream) Follow(ctx context.Context, each func([]forager.Annotation) error) error {
	for {
		select {
		case list := <-s.labels:
			if err := each(list); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// shelf is an archive in memory.
type shelf struct{ groups []forager.Group }

func (s *shelf) Put(groups []forager.Group) error {
	s.groups = append(s.groups, groups...)
	return nil
}

// line calls a service directly and loses answers when told to.
type line struct {
	*Service
	lose atomic.Int32
}

func (l *line) Call(ctx context.Context, request []byte) ([]byte, error) {
	answer, err := l.Handle(ctx, request)
	if l.lose.Add(-1) >= 0 {
		return nil, errors.New("answer lost")
	}
	return answer, err
}

func TestServiceEndToEnd(t *testing.T) {
	dir, bus, archive := t.TempDir(), newStream(), &shelf{}
	registry := prometheus.NewRegistry()
	service, err := NewService(dir, "run", DefaultConfig(), ServiceDeps{
		Batches: bus, Labels: bus, Archive: archive, Logger: quiet, Registerer: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- service.Run(ctx) }()

	wire := &line{Service: service}
	client := NewClient(wire, 3, time.Minute) // the service bounds the wait
	if _, err := client.Begin(ctx, 0); err != nil {
		t.Fatal(err)
	}
	deliver := func(data []byte) {
		bus.batches <- data
		<-bus.acked
	}
	bus.labels <- []forager.Annotation{label(1, 1, 0, "helpful", 0.5)} // before its rollout
	deliver(encode(t, small(0, 0), small(1, 0)))
	deliver([]byte("not a batch"))
	deliver(encode(t, small(2, 0)))
	deliver(encode(t, small(1, 0))) // redelivered
	bus.labels <- []forager.Annotation{label(1, 1, -1, "helpful", 1)}
	bus.labels <- nil // the one before is in the index now

	wire.lose.Store(1)
	q := Query{MaxGroups: 2}
	if _, _, err := client.Sample(ctx, q); err == nil {
		t.Fatal("the lost answer came")
	}
	groups, _, err := client.Sample(ctx, q)
	if err != nil || len(groups) != 2 || groups[0].Credit.Index != 0 || groups[1].Credit.Index != 1 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	if a := groups[1].Rollouts[1].Annotations; len(a) != 2 || *a[0].Value != 1 || *a[1].Value != 0.5 {
		t.Fatalf("annotations %v", a)
	}
	if groups, _, err = client.Sample(ctx, q); err != nil || len(groups) != 1 || groups[0].Credit.Index != 2 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	if got := everyKey(t, service, 0); !slices.Equal(got, []uint64{0, 1, 2}) { // lent ones too
		t.Fatalf("groups %v are in the table", got)
	}
	if err := client.Commit(ctx, []uint64{0, 1}, nil); err != nil {
		t.Fatal(err)
	}
	if got := everyKey(t, service, 1); !slices.Equal(got, []uint64{2}) {
		t.Fatalf("groups %v are in the table", got)
	}
	if len(archive.groups) != 2 || len(archive.groups[1].Rollouts[1].Annotations) != 2 {
		t.Fatalf("archive holds %v", archive.groups)
	}
	if _, err := NewClient(wire, 2, time.Second).Begin(ctx, 0); !errors.Is(err, forager.ErrFenced) {
		t.Fatalf("an old epoch gets %v", err)
	}

	// A new learner is offered what was lent and not committed.
	next := NewClient(wire, 4, time.Second)
	inventory, err := next.Begin(ctx, 0)
	if err != nil || !slices.Equal(inventory.Held, []uint64{2}) || !slices.Equal(inventory.Gone, []uint64{0, 1}) {
		t.Fatalf("inventory %v, %v", inventory, err)
	}
	if groups, _, err = next.Sample(ctx, q); err != nil || len(groups) != 1 || groups[0].Credit.Index != 2 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	stats, err := next.Stats(ctx)
	if err != nil || stats.Inserted != 3 || stats.Repeated != 1 || stats.Committed != 2 || stats.Lent != 1 {
		t.Fatalf("stats %+v, %v", stats, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "quarantine", "*.batch")); len(kept) != 1 {
		t.Fatalf("quarantine holds %v", kept)
	} else if data, _ := os.ReadFile(kept[0]); string(data) != "not a batch" {
		t.Fatalf("quarantined batch is %q", data)
	}
	if families, err := registry.Gather(); err != nil || len(families) < 10 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}

	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := next.Stats(t.Context()); err != nil {
		t.Fatalf("stats of a closed table: %v", err)
	}
	if _, err := next.Begin(t.Context(), 0); !errors.Is(err, ErrClosed) {
		t.Fatalf("a closed table answers %v", err)
	}
	if err := service.Each(t.Context(), 0, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("a closed table is read with %v", err)
	}
}

// serving runs a service of a stream, and of an archive unless that is nil, until the
// test ends; its context is over then.
func serving(t *testing.T, bus *stream, archive Archive) (*Service, context.Context) {
	t.Helper()
	service, err := NewService(t.TempDir(), "run", DefaultConfig(), ServiceDeps{Batches: bus, Labels: bus, Archive: archive, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return service, ctx
}

// everyKey gives the keys that Each hands over from one on.
func everyKey(t *testing.T, s *Service, from uint64) (keys []uint64) {
	t.Helper()
	err := s.Each(t.Context(), from, func(groups []forager.Group) error {
		for _, g := range groups {
			keys = append(keys, g.Credit.Index)
			if g.Credit.Index == 1 && len(g.Rollouts[1].Annotations) != 2 {
				t.Errorf("annotations %v", g.Rollouts[1].Annotations)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The archive holds what was learned from, not what was too old for that.
func TestStaleGroupsAreNotArchived(t *testing.T) {
	bus, archive := newStream(), &shelf{}
	service, ctx := serving(t, bus, archive)
	bus.batches <- encode(t, small(0, 0), small(1, 9))
	<-bus.acked
	client := NewClient(&line{Service: service}, 1, time.Minute)
	groups, drops, err := client.Sample(ctx, Query{MaxGroups: 2, Version: 10, MaxStaleness: 4})
	if err != nil || len(groups) != 1 || !slices.Equal(drops, []Drop{{0, DropStale}}) {
		t.Fatalf("groups %v, drops %v, error %v", groups, drops, err)
	}
	if err := client.Commit(ctx, []uint64{0, 1}, nil); err != nil {
		t.Fatal(err)
	}
	if len(archive.groups) != 1 || archive.groups[0].Credit.Index != 1 {
		t.Errorf("archive holds %v, want group 1 alone", archive.groups)
	}
	if n := service.Stats().Groups; n != 0 {
		t.Errorf("%d groups are left in the table", n)
	}
}

// A table of more groups than one piece is read whole, while groups leave it; a reader
// that fails gets its own error back.
func TestEachReadsPieces(t *testing.T) {
	bus := newStream()
	service, err := NewService(t.TempDir(), "run", DefaultConfig(), ServiceDeps{Batches: bus, Labels: bus, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := service.Each(gone, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("before the table is open: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- service.Run(ctx) }()
	const n = 2*readGroups + 1
	for key := range uint64(n) {
		bus.batches <- encode(t, small(key, 0))
		<-bus.acked
	}
	pieces, left := 0, []uint64{}
	err = service.Each(ctx, 0, func(groups []forager.Group) error {
		if pieces++; pieces == 1 { // the next piece loses its first
			if err := service.table.Commit(1, []uint64{readGroups}); err != nil {
				return err
			}
		}
		for _, g := range groups {
			left = append(left, g.Credit.Index)
		}
		return nil
	})
	if err != nil || pieces != 3 || len(left) != n-1 || !slices.IsSorted(left) || slices.Contains(left, readGroups) {
		t.Errorf("%d pieces of %d groups, error %v", pieces, len(left), err)
	}
	full := errors.New("full")
	if err := service.Each(ctx, 0, func([]forager.Group) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v, want the reader's own", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSampleWaitIsBounded(t *testing.T) {
	config, bus := DefaultConfig(), newStream()
	config.MaxWait = time.Millisecond
	service, err := NewService(t.TempDir(), "run", config, ServiceDeps{Batches: bus, Labels: bus, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- service.Run(ctx) }()
	groups, drops, err := NewClient(&line{Service: service}, 1, time.Hour).Sample(ctx, everything)
	if len(groups)+len(drops) != 0 || err != nil {
		t.Fatalf("groups %v, drops %v, %v", groups, drops, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodeResponse(f *testing.F) {
	raw := encode(f, small(1, 0))
	whole, err := encodeResponse(response{Held: []uint64{1}}, Loan{
		Lots: []Lot{{Raw: raw, Keys: []uint64{1}}}, Labels: []forager.Annotation{label(1, 0, 0, "helpful", 1)}, Drops: []Drop{{2, DropStale}},
	})
	if err != nil {
		f.Fatal(err)
	}
	_, loan, err := decodeResponse(whole)
	if err != nil {
		f.Fatal(err)
	}
	if groups, err := loan.Groups(); err != nil || len(groups) != 1 || len(groups[0].Rollouts[0].Annotations) != 1 || len(loan.Drops) != 1 {
		f.Fatalf("round trip gives %v, %v", groups, err)
	}
	f.Add(whole)
	f.Add(whole[:20])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, data []byte) {
		if _, loan, err := decodeResponse(data); err == nil {
			_, _ = loan.Groups()
		}
	})
}
