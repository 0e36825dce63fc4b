package replay

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/forager-rl/forager"
)

// naive is what a FIFO table should do, written as plainly as possible.
type naive struct {
	groups  []forager.Group // in the table, by insertion
	ever    map[uint64]bool
	lent    map[uint64]bool
	sampled map[uint64]int
	labels  map[string]map[labelKey]float64
	reports []Drop
	config  Config
}

func (m *naive) insert(groups []forager.Group) (inserted, repeated int) {
	for _, g := range groups {
		key := g.Credit.Index
		if m.ever[key] {
			repeated++
			if !m.has(key) {
				m.reports = append(m.reports, Drop{key, DropRepeated})
			}
			continue
		}
		inserted++
		m.ever[key] = true
		m.groups = append(m.groups, g)
	}
	for i := 0; i < len(m.groups) && len(m.groups) > m.config.MaxGroups; {
		key := m.groups[i].Credit.Index
		if m.lent[key] {
			i++
			continue
		}
		m.remove(key)
		m.reports = append(m.reports, Drop{key, DropEvicted})
	}
	return inserted, repeated
}

func (m *naive) has(key uint64) bool {
	return slices.ContainsFunc(m.groups, func(g forager.Group) bool { return g.Credit.Index == key })
}

func (m *naive) remove(key uint64) {
	m.groups = slices.DeleteFunc(m.groups, func(g forager.Group) bool { return g.Credit.Index == key })
	delete(m.lent, key)
	for sample := range 2 {
		delete(m.labels, forager.RolloutID("run", key, sample))
	}
}

func (m *naive) sample(q Query) (keys []uint64, drops []Drop) {
	drops, m.reports = m.reports, nil
	for _, g := range m.groups {
		key := g.Credit.Index
		if m.lent[key] {
			continue
		}
		if q.MaxStaleness > 0 && g.Credit.Version+forager.Version(q.MaxStaleness) < q.Version {
			m.lent[key] = true
			drops = append(drops, Drop{key, DropStale})
			continue
		}
		if len(keys) == q.MaxGroups {
			break
		}
		m.lent[key] = true
		keys = append(keys, key)
	}
	return keys, drops
}

func (m *naive) commit(keys []uint64) {
	for _, key := range keys {
		if !m.has(key) {
			continue
		}
		if m.sampled[key]++; m.sampled[key] >= m.config.MaxTimesSampled {
			m.remove(key)
		} else {
			delete(m.lent, key)
		}
	}
}

// Whatever happens, crashes included, a table does what the naive one does.
func TestTableAgreesWithNaiveModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { compare(t, rand.New(rand.NewPCG(seed, 9))) })
	}
}

func compare(t *testing.T, rng *rand.Rand) {
	config := DefaultConfig()
	config.MaxGroups, config.SegmentBytes = 8+rng.IntN(20), int64(1+rng.IntN(20000))
	config.MaxTimesSampled = 1 + rng.IntN(2)
	m := &naive{
		ever: map[uint64]bool{}, lent: map[uint64]bool{}, sampled: map[uint64]int{},
		labels: map[string]map[labelKey]float64{}, config: config,
	}
	dir := t.TempDir()
	table := open(t, dir, config)
	epoch, sequence := uint64(1), uint64(0)
	if _, err := table.Begin(epoch, 0); err != nil {
		t.Fatal(err)
	}
	var keys []uint64 // of the latest loan
	var drops []Drop
	version := forager.Version(0)

	for op := range 150 {
		switch rng.IntN(9) {
		case 0, 1, 2: // insert a batch, now and then with keys that came before
			var groups []forager.Group
			for range 1 + rng.IntN(3) {
				key := uint64(op/2 + rng.IntN(20))
				if len(groups) == 0 || groups[len(groups)-1].Credit.Index < key {
					groups = append(groups, small(key, version-min(version, forager.Version(rng.IntN(3)))))
				}
			}
			wantNew, wantOld := m.insert(groups)
			inserted, repeated, err := table.Insert(encode(t, groups...))
			if err != nil || inserted != wantNew || repeated != wantOld {
				t.Fatalf("op %d: inserted %d, repeated %d, %v; want %d, %d", op, inserted, repeated, err, wantNew, wantOld)
			}
		case 3, 4: // sample
			q := Query{MaxGroups: 1 + rng.IntN(6), MaxBytes: 1 << 30, Version: version, MaxStaleness: rng.IntN(3)}
			wantKeys, wantDrops := m.sample(q)
			sequence++
			var groups []forager.Group
			keys, drops, groups = lend(t, table, epoch, sequence, q)
			if !slices.Equal(keys, wantKeys) || !slices.Equal(drops, wantDrops) {
				t.Fatalf("op %d: sampled %v and dropped %v, want %v and %v", op, keys, drops, wantKeys, wantDrops)
			}
			if len(keys)+len(drops) == 0 {
				break
			}
			for _, g := range groups {
				for _, r := range g.Rollouts {
					if len(r.Annotations) != len(m.labels[r.ID]) {
						t.Fatalf("op %d: rollout %s has labels %v, want %v", op, r.ID, r.Annotations, m.labels[r.ID])
					}
					for _, a := range r.Annotations {
						if *a.Value != m.labels[r.ID][labelKey{a.Turn, a.Source}] {
							t.Fatalf("op %d: label %v of %s", op, *a.Value, r.ID)
						}
					}
				}
			}
			// The answer may be lost; asking again gives it again.
			if again, _, _ := lend(t, table, epoch, sequence, q); !slices.Equal(again, keys) {
				t.Fatalf("op %d: repeated request gives %v, want %v", op, again, keys)
			}
		case 5: // commit some of what is lent, and an unknown key
			done := append(slices.Clone(keys), 1<<40)
			for _, d := range drops {
				done = append(done, d.Key)
			}
			keys, drops = nil, nil
			m.commit(done)
			if err := table.Commit(epoch, done); err != nil {
				t.Fatal(err)
			}
			version++
		case 6: // the learner restarts
			epoch++
			sequence, keys, drops = 0, nil, nil
			clear(m.lent)
			m.reports = nil
			inventory, err := table.Begin(epoch, 10)
			if err != nil {
				t.Fatal(err)
			}
			for key := range m.ever {
				held, gone := slices.Contains(inventory.Held, key), slices.Contains(inventory.Gone, key)
				if key >= 10 && (held != m.has(key) || gone == held) || key < 10 && (held || gone) {
					t.Fatalf("op %d: inventory of %d: held %v, gone %v", op, key, held, gone)
				}
			}
		case 7: // a label; rollouts that left get none
			if len(m.groups) == 0 {
				break
			}
			key := m.groups[rng.IntN(len(m.groups))].Credit.Index
			a := label(key, rng.IntN(2), rng.IntN(2), "helpful", float64(op))
			if m.labels[a.RolloutID] == nil {
				m.labels[a.RolloutID] = map[labelKey]float64{}
			}
			m.labels[a.RolloutID][labelKey{a.Turn, a.Source}] = *a.Value
			table.Annotate([]forager.Annotation{a})
		case 8: // the process dies, half-way through a write; labels come again
			if err := table.Close(); err != nil {
				t.Fatal(err)
			}
			tear(t, dir, rng)
			table = open(t, dir, config)
			sequence, keys, drops = 0, nil, nil
			clear(m.lent)
			m.reports = nil
			for id, of := range m.labels {
				for key, value := range of {
					table.Annotate([]forager.Annotation{{RolloutID: id, Turn: key.turn, Source: key.source, Value: &value}})
				}
			}
			if _, err := table.Begin(epoch-1, 0); epoch > 1 && err == nil {
				t.Fatalf("op %d: the reopened table forgot epoch %d", op, epoch)
			}
		}
		if got := table.Stats().Groups; got != len(m.groups) {
			t.Fatalf("op %d: %d groups, want %d", op, got, len(m.groups))
		}
		if room := table.core.mayInsert(); !room {
			t.Fatalf("op %d: a table without ratio has no room", op)
		}
	}
}

// tear appends part of a frame to the last segment and to the journal.
func tear(t *testing.T, dir string, rng *rand.Rand) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	targets := []string{filepath.Join(dir, "journal")}
	if len(paths) > 0 {
		targets = append(targets, paths[len(paths)-1])
	}
	for _, path := range targets {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		at, err := appendFrame(f, info.Size(), make([]byte, 1+rng.IntN(100)))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(info.Size() + 1 + rng.Int64N(at.end()-info.Size()-1)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
