package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// fsm puts a State behind Raft: it decodes, locks and snapshots, and decides
// nothing.
type fsm struct {
	mu    sync.Mutex
	state State
}

// outcome is what Raft hands back to the proposer of a command.
type outcome struct {
	result Result
	err    error
}

// Apply makes the change of one committed log entry.
func (f *fsm) Apply(entry *raft.Log) any {
	c, err := decodeCommand(entry.Data)
	if errors.Is(err, errRetired) {
		return outcome{}
	}
	if err != nil {
		return outcome{err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	result, err := f.state.Apply(c)
	return outcome{result: result, err: err}
}

// read gives a copy of the state.
func (f *fsm) read() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Clone()
}

// snapshotSchema is the version of the snapshot's JSON form.
const snapshotSchema = 1

// snapshot is the state as it lies in a snapshot file.
type snapshot struct {
	Schema int   `json:"schema"`
	State  State `json:"state"`
}

// readSnapshot is a snapshot with what earlier versions of this program wrote
// into it and this one ignores.
type readSnapshot struct {
	Schema int `json:"schema"`
	State  struct {
		State
		Services json.RawMessage `json:"services"`
	} `json:"state"`
}

// Snapshot takes a copy; it is written while further commands are applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &snapshot{Schema: snapshotSchema, State: f.read()}, nil
}

// Persist writes the snapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		_ = sink.Cancel() // the encoder's error is the one to report
		return fmt.Errorf("write cluster snapshot: %w", err)
	}
	return sink.Close()
}

// Release frees nothing: a snapshot is a copy.
func (s *snapshot) Release() {}

// Restore replaces the state by a snapshot's, or leaves it as it is.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read cluster snapshot: %w", err)
	}
	var s readSnapshot
	if err := decodeStrict(data, &s); err != nil {
		return fmt.Errorf("read cluster snapshot: %w: %w", forager.ErrCorrupt, err)
	}
	if s.Schema != snapshotSchema {
		return fmt.Errorf("cluster snapshot of schema %d, this program reads %d: %w", s.Schema, snapshotSchema, forager.ErrSchema)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s.State.State
	return nil
}
