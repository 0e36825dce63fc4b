package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/forager-rl/forager"
)

const (
	snapshotsKept = 2
	fileLockWait  = time.Second // for another process to let go of the log file
)

// Open opens a group of one node whose log (raft.db) and snapshots lie under
// dir, which is made when absent, and starts Raft on it. Everything that was
// acknowledged before is there again once the node leads. It answers
// forager.ErrInUse when another process has dir open and forager.ErrCorrupt when
// the files cannot be read. The caller calls Run, then Close.
func Open(cfg Config, dir string, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open raft directory: %w", err)
	}
	store, err := openStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, raftLogger(log))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft snapshots in %s: %w", dir, err), store.Close())
	}
	address, transport := raft.NewInmemTransport(raft.ServerAddress(cfg.NodeID))
	c, err := start(cfg, node{
		logs: store, stable: store, snapshots: snapshots, transport: transport,
		voters:  []raft.Server{{ID: raft.ServerID(cfg.NodeID), Address: address}},
		release: store.Close,
	}, log, now)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft directory %s: %w", dir, err), store.Close())
	}
	return c, nil
}

// openStore opens the log file, in which each write is synced to disk.
func openStore(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:                    path,
		BoltOptions:             &bbolt.Options{Timeout: fileLockWait},
		MsgpackUseNewTimeFormat: true,
	})
	switch {
	case err == nil:
		return store, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, forager.WithHint(fmt.Errorf("open raft log %s: %w", path, forager.ErrInUse),
			"another process has it open: stop that one, or use another directory")
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, forager.WithHint(fmt.Errorf("open raft log %s: %w: %w", path, forager.ErrCorrupt, err),
			"move the raft directory aside and resume: the checkpoints hold what is needed")
	default:
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
}
