package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/forager-rl/forager"
)

// disk stands between Raft and its files. After the first failed write it writes
// nothing more, so that this node acknowledges nothing that might be gone after
// a restart: it loses the lead, gives no vote, and Run ends with the failure.
type disk struct {
	logs   raft.LogStore
	stable raft.StableStore
	log    *slog.Logger

	failed chan struct{} // closed at the first failure
	mu     sync.Mutex
	err    error
}

func newDisk(logs raft.LogStore, stable raft.StableStore, log *slog.Logger) *disk {
	return &disk{logs: logs, stable: stable, log: log, failed: make(chan struct{})}
}

// failure is the first failed write, or nil.
func (d *disk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// write does one write unless an earlier one failed.
func (d *disk) write(what string, do func() error) error {
	if err := d.failure(); err != nil {
		return err
	}
	err := do()
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	hint := "look at the volume of the raft directory, then start this node again"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		hint = "the volume is full: free space, then start this node again"
	}
	d.err = forager.WithHint(fmt.Errorf("raft cannot write %s; this node takes no more part: %w", what, err), hint)
	d.log.Error("raft storage failed", "error", d.err)
	close(d.failed)
	return d.err
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(entry *raft.Log) error { return d.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(entries []*raft.Log) error {
	return d.write("its log", func() error { return d.logs.StoreLogs(entries) })
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(low, high uint64) error {
	return d.write("its log", func() error { return d.logs.DeleteRange(low, high) })
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) { return d.logs.FirstIndex() }

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) { return d.logs.LastIndex() }

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, entry *raft.Log) error { return d.logs.GetLog(index, entry) }

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) ([]byte, error) { return d.stable.Get(key) }

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) { return d.stable.GetUint64(key) }

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error {
	return d.write("its vote", func() error { return d.stable.Set(key, value) })
}

// termKey is the one value for which the Raft library panics when it cannot be
// written.
const termKey = "CurrentTerm"

// SetUint64 implements raft.StableStore. That a term could not be written is kept
// from the library. It is safe: a term must outlast a restart for the sake of the
// votes given and the entries stored in it, and this node gives and stores none
// any more.
func (d *disk) SetUint64(key []byte, value uint64) error {
	if string(key) != termKey {
		return d.write("its vote", func() error { return d.stable.SetUint64(key, value) })
	}
	if old, err := d.stable.GetUint64(key); err == nil && old == value {
		return nil // said at each start
	}
	_ = d.write("its term", func() error { return d.stable.SetUint64(key, value) })
	return nil
}
