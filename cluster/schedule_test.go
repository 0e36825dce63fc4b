package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

const scheduleTTL = 2 * time.Second // of a learner's lease

// TestFullSchedules plays seeded schedules of what goes wrong, in virtual time:
// nodes cut off, crashed and restarted, slow and full disks, clocks an hour apart,
// logs cut, the lead handed on. Two learners and a reader work meanwhile, through
// any node. What they were told must hold in each of them.
func TestFullSchedules(t *testing.T) {
	for seed := range uint64(scale(30, 500)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playSchedule(t, seed) })
		})
	}
}

// ledger is what clients were told.
type ledger struct {
	t *testing.T

	mu      sync.Mutex
	version forager.Version // newest acknowledged
	any     bool            // version was acknowledged
	digests map[forager.Version]string
	grants  map[uint64]*grant // by epoch
	epoch   uint64            // newest acknowledged
	acked   []Command         // for the log
}

type grant struct {
	holder   string
	extended time.Time // when the newest acknowledged acquire or renew was sent
	released bool      // or it may have been
}

func playSchedule(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	n := 3 + 2*random.IntN(2)
	cutLogs := random.IntN(2) == 0
	g := newGroup(t, n, func(_ int, m *member) {
		m.cfg.ElectionTimeout = 200 * time.Millisecond
		m.clock = time.Duration(random.IntN(3)-1) * time.Hour
		if cutLogs {
			m.cfg.SnapshotEntries = 8
		}
	})
	l := &ledger{t: t, digests: map[forager.Version]string{}, grants: map[uint64]*grant{}}
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { l.learn(ctx, g, "a", seed) })
	working.Go(func() { l.learn(ctx, g, "b", seed+1) })
	working.Go(func() { l.read(ctx, g.client(seed+2)) })

	for range 12 {
		disturb(g, random)
		time.Sleep(time.Duration(100+random.IntN(1500)) * time.Millisecond)
		mend(g, random)
	}

	// All is well again: everything works, and everybody agrees.
	g.heal()
	for i, m := range g.members {
		m.disk.delay.Store(0)
		m.disk.full.Store(false)
		if g.up(i) == nil || g.up(i).disk.failure() != nil {
			_ = g.crash(i) // what its Run ended with
			g.boot(i)
		}
	}
	time.Sleep(5 * time.Second)
	cancel()
	working.Wait()
	s, err := g.client(seed).State(t.Context())
	if err != nil {
		t.Fatalf("seed %d: after all is well: %v", seed, err)
	}
	l.check(s)
	g.agree()
	for i := range g.members {
		if u := g.up(i).Status().Unknown; u != 0 {
			t.Errorf("seed %d: node %d did not understand %d entries", seed, i, u)
		}
	}
	if !cutLogs {
		l.checkLog(g.members[g.leader(-1)].disk)
	}
}

// disturb does one thing that goes wrong.
func disturb(g *group, random *rand.Rand) {
	n := len(g.members)
	i := random.IntN(n)
	if random.IntN(2) == 0 { // more often the one that matters
		for j := range n {
			if c := g.up(j); c != nil && c.leads() {
				i = j
			}
		}
	}
	c := g.up(i)
	switch what := random.IntN(8); {
	case what <= 1:
		g.isolate(i)
	case what == 2:
		g.split(i, (i+1)%n)
	case what == 3:
		_ = g.crash(i) // what its Run ended with
	case what == 4:
		g.members[i].disk.delay.Store(int64(time.Duration(random.IntN(300)) * time.Millisecond))
	case what == 5:
		g.members[i].disk.full.Store(true)
	case c != nil && what == 6:
		_ = c.raft.Snapshot().Error() // "nothing new to snapshot" is fine
	case c != nil && what == 7:
		c.handOver()
	}
}

// mend puts some of it right. A node whose disk was full has taken no more part;
// its operator frees space and starts it again.
func mend(g *group, random *rand.Rand) {
	if random.IntN(2) == 0 {
		g.heal()
	}
	for i, m := range g.members {
		if random.IntN(2) == 0 {
			m.disk.delay.Store(0)
		}
		if random.IntN(2) == 0 {
			m.disk.full.Store(false)
			if c := g.up(i); c != nil && c.disk.failure() != nil {
				if err := g.crash(i); !errors.Is(err, syscall.ENOSPC) {
					g.t.Errorf("a node whose disk was full ended with %v", err)
				}
			}
		}
		if g.up(i) == nil && random.IntN(2) == 0 {
			g.boot(i)
		}
	}
}

// learn is a learner: it takes the lease, publishes under it for a while, and
// gives it back or falls silent.
func (l *ledger) learn(ctx context.Context, g *group, holder string, seed uint64) {
	random, client := rand.New(rand.NewPCG(seed, 8)), g.client(seed)
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	for ; ctx.Err() == nil; pause(time.Duration(random.IntN(500)) * time.Millisecond) {
		sent := time.Now()
		lease, current, err := client.AcquireLease(ctx, holder, scheduleTTL)
		if err != nil {
			continue
		}
		l.granted(lease, sent)
		next := forager.Version(0)
		if current != nil {
			next = current.Version + 1
		}
		for range random.IntN(8) {
			pause(time.Duration(random.IntN(300)) * time.Millisecond)
			m := manifest(next, lease.Epoch, fmt.Sprint(holder, lease.Epoch, next))
			if err := client.PublishManifest(ctx, m); err != nil {
				break
			}
			l.published(m)
			next++
			sent := time.Now()
			if _, err := client.RenewLease(ctx, lease); err != nil {
				break
			}
			l.extended(lease, sent)
		}
		if random.IntN(2) == 0 {
			l.releasing(lease)
			_ = client.ReleaseLease(ctx, lease)
		}
	}
}

// read reads: what was acknowledged before is there.
func (l *ledger) read(ctx context.Context, client *Client) {
	for ctx.Err() == nil { // a schedule may begin with longer without a leader than a call waits
		err := client.SetRun(ctx, Run{"r", "d"})
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			l.t.Errorf("set run: %v", err)
			break
		}
	}
	for ctx.Err() == nil {
		l.mu.Lock()
		version, any, epoch := l.version, l.any, l.epoch
		l.mu.Unlock()
		if s, err := client.State(ctx); err == nil {
			if any && (s.Manifest == nil || s.Manifest.Version < version) || s.Lease.Epoch < epoch {
				l.t.Errorf("read %+v under %+v after v%d and epoch %d were acknowledged", s.Manifest, s.Lease, version, epoch)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *ledger) granted(lease Lease, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other := l.grants[lease.Epoch]; other != nil {
		l.t.Errorf("epoch %d was granted to %q and to %q", lease.Epoch, other.holder, lease.Holder)
	}
	if before := l.grants[lease.Epoch-1]; before != nil && before.holder != lease.Holder && !before.released {
		if held := time.Since(before.extended); held < scheduleTTL {
			l.t.Errorf("epoch %d was taken from %q %v after it was extended", lease.Epoch-1, before.holder, held)
		}
	}
	l.grants[lease.Epoch] = &grant{holder: lease.Holder, extended: sent}
	l.epoch = max(l.epoch, lease.Epoch)
}

func (l *ledger) extended(lease Lease, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants[lease.Epoch].extended = sent
}

func (l *ledger) releasing(lease Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants[lease.Epoch].released = true
}

func (l *ledger) published(m forager.Manifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d, ok := l.digests[m.Version]; ok && d != m.Digest {
		l.t.Errorf("v%d was published as %s and as %s", m.Version, d, m.Digest)
	}
	l.digests[m.Version] = m.Digest
	l.version, l.any = max(l.version, m.Version), true
	l.acked = append(l.acked, Command{PublishManifest: &PublishManifest{m}})
}

func (l *ledger) check(s State) {
	if !l.any || len(l.grants) == 0 {
		l.t.Errorf("nothing was done: %d grants", len(l.grants))
	}
	if l.any && (s.Manifest == nil || s.Manifest.Version < l.version) || s.Lease.Epoch < l.epoch {
		l.t.Errorf("acknowledged v%d and epoch %d, kept %+v under %+v", l.version, l.epoch, s.Manifest, s.Lease)
	}
	if s.Manifest != nil {
		if d, ok := l.digests[s.Manifest.Version]; ok && d != s.Manifest.Digest {
			l.t.Errorf("v%d was acknowledged as %s, kept as %s", s.Manifest.Version, d, s.Manifest.Digest)
		}
	}
}

// checkLog finds each acknowledged manifest in a whole log, and that versions and
// epochs in it only go up.
func (l *ledger) checkLog(store raft.LogStore) {
	last, err := store.LastIndex()
	if err != nil {
		l.t.Fatal(err)
	}
	var s State
	kept := map[forager.Manifest]bool{}
	for i := uint64(1); i <= last; i++ {
		var entry raft.Log
		if err := store.GetLog(i, &entry); err != nil {
			l.t.Fatalf("entry %d of %d: %v", i, last, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		cmd, err := decodeCommand(entry.Data)
		if err != nil {
			l.t.Fatal(err)
		}
		if cmd.Term != entry.Term {
			continue
		}
		before := s.Clone()
		_, err = s.Apply(cmd)
		checkStep(l.t, before, s, cmd, err)
		if err == nil && cmd.PublishManifest != nil {
			kept[cmd.PublishManifest.Manifest] = true
		}
	}
	for _, cmd := range l.acked {
		if !kept[cmd.PublishManifest.Manifest] {
			l.t.Errorf("v%d of epoch %d was acknowledged and is not in the log", cmd.PublishManifest.Manifest.Version, cmd.PublishManifest.Manifest.Epoch)
		}
	}
}
