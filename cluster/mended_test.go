package cluster

import (
	"testing"

	"github.com/hashicorp/raft"
)

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
