package cluster

import (
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// wire is what the transports of the Raft library have in common.
type wire interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// mended is a transport that corrects what reaches the Raft library, which is at
// odds with the paper (Figure 13, rules 6 and 7) where snapshots meet logs; see
// hashicorp/raft issue 697.
//
// A snapshot that comes late, because the answer to an earlier one was lost, takes
// the library back in time: everything up to it was applied, so the answer is that
// it is installed.
//
// Entries that follow on one that is no longer in the log are refused, because the
// library looks for it there. The leader then sends its snapshot, the follower has
// it, and the same entries come again: without end and without a pause. Whatever was
// applied a follower has in common with any leader, so there is nothing to look up.
//
// Entries of an old log that a snapshot has overtaken stay in the log, and a later
// leader might send them on: trim removes them.
type mended struct {
	wire

	snapshots *snapshots
	rpcs      chan raft.RPC
	done      chan struct{}
}

// run passes requests on until done is closed.
func (m *mended) run(c *Cluster) {
	for {
		select {
		case rpc := <-m.wire.Consumer():
			switch request := rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				rpc.Command = m.mend(c, request)
			case *raft.InstallSnapshotRequest:
				if m.settle(c, rpc, request) {
					continue
				}
			}
			select {
			case m.rpcs <- rpc:
			case <-m.done:
				return
			}
		case <-m.done:
			return
		}
	}
}

// Consumer implements raft.Transport.
func (m *mended) Consumer() <-chan raft.RPC { return m.rpcs }

// mend takes the look-up out of entries that follow on an applied one which is no
// longer in the log.
func (m *mended) mend(c *Cluster, request *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	applied := c.raft.AppliedIndex()
	if request.PrevLogEntry == 0 || request.PrevLogEntry > applied || request.PrevLogEntry == c.raft.LastIndex() {
		return request
	}
	if err := c.disk.GetLog(request.PrevLogEntry, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		return request
	}
	return unchecked(request, applied)
}

// unchecked is a request without what was applied, and without a look-up of what
// comes before. It lets commit no more than it vouches for, as the paper has it:
// the library would commit all that is in the log.
func unchecked(request *raft.AppendEntriesRequest, applied uint64) *raft.AppendEntriesRequest {
	free, last := *request, request.PrevLogEntry
	free.PrevLogEntry, free.PrevLogTerm = 0, 0 // nothing comes before
	if n := len(request.Entries); n > 0 {
		last = request.Entries[n-1].Index
	}
	free.Entries = slices.DeleteFunc(slices.Clone(request.Entries), func(entry *raft.Log) bool { return entry.Index <= applied })
	free.LeaderCommitIndex = min(request.LeaderCommitIndex, last)
	return &free
}

// settle answers a snapshot that the library need not see.
func (m *mended) settle(c *Cluster, rpc raft.RPC, request *raft.InstallSnapshotRequest) bool {
	term := c.raft.CurrentTerm()
	failure := c.disk.failure()
	if failure == nil && (request.Term < term || request.LastLogIndex > c.raft.AppliedIndex()) {
		return false
	}
	go func() { // ends with the bytes of the snapshot, or their connection
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(&raft.InstallSnapshotResponse{Term: term, Success: failure == nil}, failure)
	}()
	return true
}

// trim removes the entries up to the newest snapshot from the log when they do
// not belong to it. Raft waits meanwhile.
func (m *mended) trim(c *Cluster) error {
	newest := m.snapshots.newest.Load()
	var last raft.Log
	err := c.disk.GetLog(newest.index, &last)
	if err == nil && last.Term == newest.term {
		return nil // and then so do all before it
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	from, errFrom := c.disk.FirstIndex()
	to, errTo := c.disk.LastIndex()
	if to = min(to, newest.index); errFrom != nil || errTo != nil || from == 0 || from > to {
		return errors.Join(errFrom, errTo)
	}
	return c.disk.DeleteRange(from, to)
}

// snapshots notes the newest snapshot that was written whole. The one that a node
// makes itself may be finished after a newer one that was sent to it.
type snapshots struct {
	raft.SnapshotStore

	newest atomic.Pointer[position]
}

func (s *snapshots) note(p position) {
	for {
		newest := s.newest.Load()
		if newest != nil && newest.index >= p.index || s.newest.CompareAndSwap(newest, &p) {
			return
		}
	}
}

// position is the last log entry that a snapshot holds.
type position struct{ index, term uint64 }

func noteSnapshots(store raft.SnapshotStore) (*snapshots, error) {
	s := &snapshots{SnapshotStore: store}
	list, err := store.List()
	if err == nil && len(list) > 0 {
		s.note(position{list[0].Index, list[0].Term})
	}
	return s, err
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		return nil, err
	}
	return &notedSink{sink, func() { s.note(position{index, term}) }}, nil
}

type notedSink struct {
	raft.SnapshotSink

	written func()
}

// Close implements raft.SnapshotSink.
func (s *notedSink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.written()
	}
	return err
}
