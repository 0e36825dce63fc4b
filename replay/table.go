package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// Table stores groups on disk and lends them to one learner. It is safe for
// concurrent use.
type Table struct {
	run    string
	config Config
	logger *slog.Logger

	mu       sync.Mutex
	core     *core
	segments *segments
	journal  *journal
	labels   *labels
	epoch    uint64 // of the learner that Begin was last called for
	last     lending
	changed  chan struct{} // closed when a waiter may have something to do
	counts   Counts
	closed   bool
}

// lending is the answer to the latest sample request, kept so that a request
// whose answer was lost can be repeated.
type lending struct {
	sequence uint64
	keys     []uint64
	drops    []Drop
}

// Counts is what has happened since the table was opened.
type Counts struct {
	Inserted  uint64 `json:"inserted"`
	Repeated  uint64 `json:"repeated"` // groups refused because they came before
	Sampled   uint64 `json:"sampled"`
	Committed uint64 `json:"committed"`
	Stale     uint64 `json:"stale"`
	Evicted   uint64 `json:"evicted"`
	Corrupt   uint64 `json:"corrupt"`
	Labels    uint64 `json:"labels"`
}

// Stats describes a table.
type Stats struct {
	Counts
	Groups        int    `json:"groups"`
	Lent          int    `json:"lent"`
	Bytes         int64  `json:"bytes"` // on disk
	Segments      int    `json:"segments"`
	LabelsKept    int    `json:"labels_kept"`
	LabelsDropped uint64 `json:"labels_dropped"`
	EarlyRollouts int    `json:"early_rollouts"` // with labels, but not here yet
	Epoch         uint64 `json:"epoch"`
}

// Errors of a table besides those of the root package.
var (
	// ErrRefused means that a batch is readable but does not belong in the table.
	ErrRefused = errors.New("batch refused")
	// ErrClosed means that the table is closed.
	ErrClosed = errors.New("replay table is closed")
)

// Open opens or creates the table of a run in a directory, which must not be
// open elsewhere. What a crash left half-written is cut off.
func Open(dir, run string, config Config, logger *slog.Logger) (*Table, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open replay table: %w", err)
	}
	always := config.Sync == SyncAlways
	t := &Table{
		run: run, config: config, logger: logger,
		core:     newCore(config),
		segments: &segments{dir: dir, limit: config.SegmentBytes, sync: always, logger: logger},
		journal:  &journal{path: filepath.Join(dir, "journal"), sync: always, logger: logger},
		labels:   newLabels(config.MaxLabels, config.MaxEarlyRollouts),
		changed:  make(chan struct{}),
	}
	if err := t.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open replay table %s: %w", dir, err), t.Close())
	}
	return t, nil
}

func (t *Table) load() error {
	sampled := make(map[uint64]int)
	err := t.journal.open(func(e event) {
		t.epoch = max(t.epoch, e.Epoch)
		if len(e.Gone) > 0 {
			t.core.gone = e.Gone // the first event of a rewritten journal
		}
		for _, key := range e.Removed {
			t.core.gone.add(key)
		}
		for _, key := range e.Sampled {
			sampled[key]++
		}
	})
	if err != nil {
		return err
	}
	err = t.segments.open(func(at *stored, groups []meta) {
		for _, m := range groups {
			if !t.core.has(m.Key) {
				t.core.insert(m, at)
				t.core.items[m.Key].sampled = sampled[m.Key]
				t.labels.expect(m.Rollouts)
			}
		}
	})
	if err != nil {
		return err
	}
	t.core.begin()
	return t.tidy()
}

// Insert stores the groups of one encoded batch that have not been stored
// before; once it returns they survive a killed process. Errors wrap
// forager.ErrCorrupt, forager.ErrSchema or ErrRefused when the batch is to
// blame, and then nothing is stored.
func (t *Table) Insert(raw []byte) (inserted, repeated int, err error) {
	return t.insert(raw, forager.Trace{})
}

// insert is Insert for groups with a place in a trace, which is kept with them.
func (t *Table) insert(raw []byte, at forager.Trace) (inserted, repeated int, err error) {
	groups, err := batch.DecodeGroups(raw)
	if err != nil {
		return 0, 0, err
	}
	metas := make([]meta, len(groups))
	for i := range groups {
		if metas[i], err = t.describe(&groups[i]); err != nil {
			return 0, 0, err
		}
		metas[i].Trace = at
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, 0, ErrClosed
	}
	var fresh []meta
	batchKeys := make(map[uint64]bool, len(metas))
	for _, m := range metas {
		switch {
		case batchKeys[m.Key] || t.core.has(m.Key):
			repeated++
			if t.core.gone.has(m.Key) {
				t.core.report(m.Key, DropRepeated)
			}
		default:
			batchKeys[m.Key] = true
			fresh = append(fresh, m)
		}
	}
	t.counts.Repeated += uint64(repeated)
	if len(fresh) == 0 {
		return 0, repeated, nil
	}
	stored, err := t.segments.append(fresh, raw)
	if err != nil {
		return 0, repeated, forager.WithHint(fmt.Errorf("store batch: %w", err), "free disk space, then resume")
	}
	for _, m := range fresh {
		t.core.insert(m, stored)
		t.labels.expect(m.Rollouts)
	}
	t.counts.Inserted += uint64(len(fresh))
	t.wake()
	return len(fresh), repeated, t.evict()
}

// describe checks a group and gives what the table must know about it.
func (t *Table) describe(g *forager.Group) (meta, error) {
	if g.Credit.Run != t.run {
		return meta{}, fmt.Errorf("%w: group %d is of run %q, this is run %q", ErrRefused, g.Credit.Index, g.Credit.Run, t.run)
	}
	m := meta{Key: g.Credit.Index}
	seen := make(map[string]bool, len(g.Rollouts))
	var oldest []forager.Version // by rollout that the policy had a part in
	for i := range g.Rollouts {
		r := &g.Rollouts[i]
		if seen[r.ID] {
			return meta{}, fmt.Errorf("%w: group %d holds rollout %s twice", ErrRefused, m.Key, r.ID)
		}
		seen[r.ID] = true
		m.Rollouts = append(m.Rollouts, r.ID)
		if len(r.Versions) > 0 {
			oldest = append(oldest, r.OldestVersion())
		}
	}
	m.Oldest = g.Credit.Version
	if len(oldest) > 0 {
		m.Oldest = slices.Min(oldest)
	}
	return m, nil
}

// evict makes room after an insert.
func (t *Table) evict() error {
	surplus := t.core.surplus()
	if len(surplus) == 0 {
		return nil
	}
	if err := t.remove(event{Removed: surplus}); err != nil {
		return err
	}
	for _, key := range surplus {
		t.core.report(key, DropEvicted)
	}
	t.counts.Evicted += uint64(len(surplus))
	return nil
}

// remove writes an event, then does what it says.
func (t *Table) remove(e event) error {
	if err := t.journal.append(e); err != nil {
		return forager.WithHint(fmt.Errorf("write replay journal: %w", err), "free disk space, then resume")
	}
	for _, key := range e.Sampled {
		t.core.commit(key)
	}
	for _, key := range e.Removed {
		if it := t.core.remove(key); it != nil {
			t.labels.forget(it.Rollouts)
		}
	}
	return t.tidy()
}

// tidy deletes dead segments and shortens the journal. The journal must reach
// the disk first: it alone remembers the keys of what is deleted.
func (t *Table) tidy() error {
	if t.journal.long() {
		e := event{Epoch: t.epoch, Gone: t.core.gone}
		for key, it := range t.core.items {
			for range it.sampled {
				e.Sampled = append(e.Sampled, key)
			}
		}
		if err := t.journal.rewrite(e); err != nil {
			return fmt.Errorf("rewrite replay journal: %w", err)
		}
	}
	if !t.segments.dead() {
		return nil
	}
	if err := t.journal.flush(); err != nil {
		return fmt.Errorf("flush replay journal: %w", err)
	}
	if err := t.segments.prune(); err != nil {
		return fmt.Errorf("delete empty segments: %w", err)
	}
	return nil
}

// WaitRoom blocks until the rate limiter lets inserts go on, or ctx is done.
func (t *Table) WaitRoom(ctx context.Context) error {
	for {
		t.mu.Lock()
		room, changed := t.core.mayInsert(), t.changed
		t.mu.Unlock()
		if room {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for room in replay: %w", context.Cause(ctx))
		}
	}
}

// wake lets everyone who waits look again. The lock is held.
func (t *Table) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Annotate keeps labels for the time when their rollouts are sampled.
func (t *Table) Annotate(list []forager.Annotation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range list {
		t.labels.add(a)
	}
	t.counts.Labels += uint64(len(list))
}

// Stats describes the table now.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Counts: t.counts, Groups: len(t.core.items), Lent: t.core.lent,
		Bytes: t.segments.bytes(), Segments: len(t.segments.list),
		LabelsKept: t.labels.count, LabelsDropped: t.labels.dropped, EarlyRollouts: t.labels.earlyCount,
		Epoch: t.epoch,
	}
}

// Close closes the files. The table is not used afterwards.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return errors.Join(t.segments.close(), t.journal.close())
}
