package replay

import (
	"context"
	"fmt"
	"slices"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/batch"
)

// Inventory is what a table knows about groups from some key on.
type Inventory struct {
	Held []uint64 // in the table
	Gone []uint64 // were in the table and left for good
}

// Lot is a part of a stored batch: its bytes, and which of its groups are meant.
type Lot struct {
	Raw    []byte
	Keys   []uint64
	Traces []forager.Trace // one for each key
}

// Loan is the answer to a sample request.
type Loan struct {
	Lots   []Lot
	Labels []forager.Annotation // of the rollouts in Lots
	Drops  []Drop
}

// Groups decodes the lots, joined with their labels, in the order of sampling.
func (l *Loan) Groups() ([]forager.Group, error) {
	labels := make(map[string][]forager.Annotation)
	for _, a := range l.Labels {
		labels[a.RolloutID] = append(labels[a.RolloutID], a)
	}
	var groups []forager.Group
	for _, lot := range l.Lots {
		decoded, err := batch.DecodeGroups(lot.Raw)
		if err != nil {
			return nil, err
		}
		for i, key := range lot.Keys {
			at := slices.IndexFunc(decoded, func(g forager.Group) bool { return g.Credit.Index == key })
			if at < 0 {
				return nil, fmt.Errorf("%w: group %d is not in its batch", forager.ErrCorrupt, key)
			}
			g := decoded[at]
			if i < len(lot.Traces) {
				g.Credit.Trace = lot.Traces[i]
			}
			for i := range g.Rollouts {
				g.Rollouts[i].Annotations = labels[g.Rollouts[i].ID]
			}
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// Begin says that the learner of an epoch starts: everything that is lent and
// not committed is offered again. It tells what became of the groups of key from
// and later. An epoch older than the newest known one gets forager.ErrFenced.
func (t *Table) Begin(epoch, from uint64) (Inventory, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.enter(epoch); err != nil {
		return Inventory{}, err
	}
	t.release()
	return Inventory{Held: t.core.held(from), Gone: t.core.gone.from(from).keys()}, nil
}

// Admit refuses with forager.ErrFenced an epoch older than the newest known one.
func (t *Table) Admit(epoch uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.enter(epoch)
}

// enter refuses learners that have been replaced, and begins for one that
// replaces.
func (t *Table) enter(epoch uint64) error {
	switch {
	case t.closed:
		return ErrClosed
	case epoch < t.epoch:
		return fmt.Errorf("replay serves epoch %d, not %d: %w", t.epoch, epoch, forager.ErrFenced)
	case epoch == t.epoch:
		return nil
	}
	if err := t.journal.append(event{Epoch: epoch}); err != nil {
		return fmt.Errorf("write replay journal: %w", err)
	}
	t.epoch = epoch
	t.release()
	return nil
}

func (t *Table) release() {
	t.core.begin()
	t.last = lending{}
	t.wake()
}

// Sample lends groups to the learner of an epoch. It waits until there is
// something to tell or ctx is done, which is no error. sequence numbers the
// requests of an epoch from 1: the same number again gets the same answer again,
// for the case that it was lost. A lower one is forager.ErrStale: it was repeated and
// answered, and nobody waits for what it would be lent now. 0 is always new.
func (t *Table) Sample(ctx context.Context, epoch, sequence uint64, q Query) (Loan, error) {
	for {
		t.mu.Lock()
		loan, err := t.lend(epoch, sequence, q)
		changed := t.changed
		t.mu.Unlock()
		if err != nil || len(loan.Lots)+len(loan.Drops) > 0 {
			return loan, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Loan{}, nil
		}
	}
}

func (t *Table) lend(epoch, sequence uint64, q Query) (Loan, error) {
	if err := t.enter(epoch); err != nil {
		return Loan{}, err
	}
	if sequence != 0 && sequence < t.last.sequence {
		return Loan{}, fmt.Errorf("sample request %d, after the answer to %d: %w", sequence, t.last.sequence, forager.ErrStale)
	}
	if sequence == 0 || sequence != t.last.sequence {
		picked, drops := t.core.sample(q)
		if len(picked)+len(drops) == 0 {
			return Loan{}, nil
		}
		keys := make([]uint64, len(picked))
		for i, it := range picked {
			keys[i] = it.Key
		}
		t.last = lending{sequence, keys, drops}
		t.counts.Sampled += uint64(len(picked))
		for _, d := range drops {
			if d.Reason == DropStale {
				t.counts.Stale++
			}
		}
		t.wake() // a sample makes room for inserts
	}
	lots, corrupt := t.lots(t.last.keys)
	for _, key := range corrupt {
		t.last.keys = slices.DeleteFunc(t.last.keys, func(k uint64) bool { return k == key })
		t.last.drops = append(t.last.drops, Drop{key, DropCorrupt})
	}
	loan := Loan{Lots: lots, Drops: t.last.drops}
	for _, key := range t.last.keys {
		if it := t.core.items[key]; it != nil {
			for _, id := range it.Rollouts {
				loan.Labels = append(loan.Labels, t.labels.of(id)...)
			}
		}
	}
	return loan, nil
}

// lots reads groups from disk, those of one batch together.
func (t *Table) lots(keys []uint64) (lots []Lot, corrupt []uint64) {
	var previous *stored
	damaged := false
	for _, key := range keys {
		it := t.core.items[key]
		if it == nil {
			continue // committed since
		}
		if it.stored != previous {
			previous = it.stored
			raw, err := t.segments.read(it.stored)
			if damaged = err != nil; damaged {
				t.logger.Error("stored batch is lost", "group", key, "error", err)
				t.counts.Corrupt++
			} else {
				lots = append(lots, Lot{Raw: raw})
			}
		}
		if damaged {
			corrupt = append(corrupt, key)
			continue
		}
		lot := &lots[len(lots)-1]
		lot.Keys = append(lot.Keys, key)
		lot.Traces = append(lot.Traces, it.Trace)
	}
	return lots, corrupt
}

// Commit says that a durable checkpoint has used groups up: they leave the
// table, or with MaxTimesSampled above 1 are offered again until they have been
// used that often. Unknown keys are ignored, so a commit may be repeated; with
// MaxTimesSampled above 1 a repetition counts as one more use.
func (t *Table) Commit(epoch uint64, keys []uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.enter(epoch); err != nil {
		return err
	}
	stay, leave := t.core.settle(keys)
	if len(stay)+len(leave) == 0 {
		return nil
	}
	if err := t.remove(event{Sampled: stay, Removed: leave}); err != nil {
		return err
	}
	t.counts.Committed += uint64(len(stay) + len(leave))
	t.wake()
	return nil
}

// Held gives the keys of the groups that are in the table, from key from on, ascending.
func (t *Table) Held(from uint64) ([]uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	return t.core.held(from), nil
}

// given leaves out of keys the groups that the learner was not given but told about
// as too old: it commits them too, so that they are forgotten.
func (t *Table) given(keys []uint64) []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(keys), func(key uint64) bool {
		it := t.core.items[key]
		return it != nil && it.stale
	})
}

// Read gives the groups of those keys that are in the table, with their labels.
// Groups whose bytes are damaged are left out.
func (t *Table) Read(keys []uint64) ([]forager.Group, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, ErrClosed
	}
	lots, _ := t.lots(keys)
	loan := Loan{Lots: lots}
	for _, key := range keys {
		if it := t.core.items[key]; it != nil {
			for _, id := range it.Rollouts {
				loan.Labels = append(loan.Labels, t.labels.of(id)...)
			}
		}
	}
	t.mu.Unlock()
	return loan.Groups()
}
