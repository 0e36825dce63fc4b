package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// TestEntriesBehindACutLog: entries that follow on one which the follower has
// applied and cut off are taken, though the library cannot look that one up.
func TestEntriesBehindACutLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, 3, func(_ int, m *member) { m.cfg.SnapshotEntries = 4 })
		ctx, client := t.Context(), g.client(1)
		if err := client.SetRun(ctx, Run{"r", "d"}); err != nil {
			t.Fatal(err)
		}
		lease, _, err := client.AcquireLease(ctx, "a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for v := range forager.Version(50) {
			if err := client.PublishManifest(ctx, manifest(v, lease.Epoch, "x")); err != nil {
				t.Fatal(err)
			}
		}
		g.agree() // a follower that is behind has little to cut off
		leader := g.leader(-1)
		follower := (leader + 1) % 3
		c := g.up(follower)
		if err := c.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		first, err := g.members[follower].disk.FirstIndex()
		if err != nil || first < 4 {
			t.Fatalf("the log begins at %d, %v: nothing was cut off", first, err)
		}
		// What is left of it: the entry before the last one cut off is looked up.
		request := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(nodeName(leader)), Addr: []byte(nodeName(leader) + ":1")},
			Term:      c.raft.CurrentTerm(), PrevLogEntry: first - 2, PrevLogTerm: 1, LeaderCommitIndex: first,
		}
		for index := first - 1; index <= first; index++ {
			request.Entries = append(request.Entries, &raft.Log{Index: index, Term: c.raft.CurrentTerm()})
		}
		var response raft.AppendEntriesResponse
		to := g.members[follower].transport.LocalAddr()
		if err := g.members[leader].transport.AppendEntries(raft.ServerID(nodeName(follower)), to, request, &response); err != nil || !response.Success {
			t.Errorf("refused: %+v, %v", response, err)
		}
		g.agree()
	})
}

// TestNewestSnapshot: one that is finished late does not take the place of a newer one.
func TestNewestSnapshot(t *testing.T) {
	s := &snapshots{}
	for _, p := range []position{{5, 1}, {9, 2}, {7, 1}} {
		s.note(p)
	}
	if newest := *s.newest.Load(); newest != (position{9, 2}) {
		t.Errorf("newest is %+v", newest)
	}
}

// A follower that has applied up to 7 is sent what follows on an entry that its
// log no longer has.
func TestUnchecked(t *testing.T) {
	for name, c := range map[string]struct {
		prev, last, commit uint64
		first, kept        uint64 // index of the first entry that is left, and how many are
		allowed            uint64
	}{
		"follows on a snapshot of the leader": {prev: 4, last: 9, commit: 12, first: 8, kept: 2, allowed: 9},
		"all applied":                         {prev: 4, last: 6, commit: 12, allowed: 6},
		"no entries":                          {prev: 5, last: 5, commit: 12, allowed: 5},
		"follows on what was applied last":    {prev: 7, last: 9, commit: 8, first: 8, kept: 2, allowed: 8},
	} {
		request := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: c.prev, PrevLogTerm: 2, LeaderCommitIndex: c.commit}
		for index := c.prev + 1; index <= c.last; index++ {
			request.Entries = append(request.Entries, &raft.Log{Index: index, Term: 3})
		}
		free := unchecked(request, 7)
		if free.Term != 3 || free.PrevLogEntry != 0 || free.PrevLogTerm != 0 || free.LeaderCommitIndex != c.allowed || uint64(len(free.Entries)) != c.kept {
			t.Errorf("%s: %+v", name, free)
		}
		if c.kept > 0 && free.Entries[0].Index != c.first {
			t.Errorf("%s: begins with %d, want %d", name, free.Entries[0].Index, c.first)
		}
		if request.PrevLogEntry != c.prev || uint64(len(request.Entries)) != c.last-c.prev {
			t.Errorf("%s: the request itself was changed", name)
		}
	}
}
