package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// errNewerProgram is why a node does not lead: its state lacks what it could not
// read.
var errNewerProgram = forager.WithHint(errors.New("the log has entries of a newer program, which this one cannot apply"),
	"run the same program on all nodes")

// fsm puts a State behind Raft: it decodes, locks and snapshots, and decides
// nothing.
//
// An entry of a newer program cannot be applied, and it must not be lost: from
// then on this node writes no snapshots, so that the entry stays in its log until
// a newer program reads it again, and does not lead.
type fsm struct {
	log     *slog.Logger
	unknown atomic.Uint64 // entries that were not understood

	mu      sync.Mutex
	install func() error // called after a snapshot of a leader was restored
	state   State
	newer   bool  // the state lacks an entry of a newer program
	refused error // the last snapshot that could not be read
}

// outcome is what Raft hands back to the proposer of a command.
type outcome struct {
	result Result
	err    error
}

// Apply makes the change of one committed log entry.
func (f *fsm) Apply(entry *raft.Log) any {
	c, err := decodeCommand(entry.Data)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case errors.Is(err, errRetired):
		return outcome{}
	case err != nil:
		f.unknown.Add(1)
		f.newer = f.newer || json.Valid(entry.Data)
		f.log.Error("raft log entry is not understood: it stays in the log", "index", entry.Index, "term", entry.Term, "bytes", len(entry.Data), "error", err)
		return outcome{err: err}
	case c.Term != 0 && c.Term != entry.Term:
		// Between its stamp and its place in the log the leader changed, and may have
		// changed back.
		return outcome{err: unavailable("apply a command", fmt.Errorf("it is of term %d, and the log of term %d", c.Term, entry.Term))}
	}
	result, err := f.state.Apply(c)
	return outcome{result: result, err: err}
}

// behind says whether the state lacks an entry of a newer program.
func (f *fsm) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newer
}

// refusal is why the last snapshot could not be read, or nil.
func (f *fsm) refusal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
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

// storedSnapshot is a snapshot with what earlier versions of this program wrote
// into it and this one ignores.
type storedSnapshot struct {
	Schema int `json:"schema"`
	State  struct {
		State
		Services json.RawMessage `json:"services"`
	} `json:"state"`
}

// Snapshot takes a copy; it is written while further commands are applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.behind() {
		return nil, errNewerProgram
	}
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
	s, err := readSnapshot(r)
	install := f.replace(s.State, err)
	if err != nil {
		f.unknown.Add(1)
		f.log.Error("raft snapshot is not understood: it stays where it is", "error", err)
		return err
	}
	if install != nil {
		return install() // writes to disk: not under the lock
	}
	return nil
}

// replace takes over the state of a snapshot unless it could not be read, and
// gives what is to be called then.
func (f *fsm) replace(s State, unread error) (install func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = unread
	if unread == nil {
		f.state, f.newer = s, false
	}
	return f.install
}

// onInstall has a function called after each restore that follows.
func (f *fsm) onInstall(do func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.install = do
}

func readSnapshot(r io.Reader) (snapshot, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return snapshot{}, fmt.Errorf("read cluster snapshot: %w", err)
	}
	// The schema first: a newer one may have fields that this program does not know.
	var schema struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &schema); err == nil && schema.Schema != snapshotSchema {
		return snapshot{}, forager.WithHint(
			fmt.Errorf("cluster snapshot of schema %d, this program reads %d: %w", schema.Schema, snapshotSchema, forager.ErrSchema),
			"run the program that wrote it, or a newer one")
	}
	var s storedSnapshot
	if err := decodeStrict(data, &s); err != nil {
		return snapshot{}, fmt.Errorf("read cluster snapshot: %w: %w", forager.ErrCorrupt, err)
	}
	return snapshot{Schema: s.Schema, State: s.State.State}, nil
}
