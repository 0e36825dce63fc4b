package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/forager-rl/forager"
)

const (
	snapshotsKept = 2
	fileLockWait  = time.Second     // for another process to let go of the log file
	networkWait   = 2 * time.Second // for one exchange between two nodes, the write to disk included
)

// Open opens one node of a group, whose log (raft.db) and snapshots lie under
// dir, which is made when absent, and starts Raft on it. Everything that was
// acknowledged before is there again once the group has a leader. It answers
// forager.ErrInUse when another process has dir or the address open and
// forager.ErrCorrupt when the files cannot be read. The caller calls Run, then
// Close.
func Open(cfg Config, dir string, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		return openIn(cfg, dir, nil, log, now)
	}
	listener, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	c, err := openIn(cfg, dir, listener, log, now)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(listener.Close()))
	}
	return c, nil
}

func listen(address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: keepAlive()}
	listener, err := config.Listen(context.Background(), "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, forager.WithHint(fmt.Errorf("raft: port of %s is %w", address, forager.ErrInUse), "stop the process that listens there, or change cluster.listen")
	case err != nil:
		return nil, fmt.Errorf("raft: listen on cluster.listen: %w", err)
	}
	return listener, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// openIn opens a node on a listener, which is nil for a group of one.
func openIn(cfg Config, dir string, listener net.Listener, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open raft directory: %w", err)
	}
	store, err := openStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		return nil, err
	}
	c, err := openOn(cfg, dir, store, listener, log, now)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raft directory %s: %w", dir, err), store.Close())
	}
	return c, nil
}

// openOn opens a node on its log file, which stays open after an error.
func openOn(cfg Config, dir string, store *raftboltdb.BoltStore, listener net.Listener, log *slog.Logger, now func() time.Time) (*Cluster, error) {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, raftLogger(log, now))
	if err != nil {
		return nil, fmt.Errorf("open raft snapshots: %w", err)
	}
	n := node{logs: store, stable: store, snapshots: snapshots, release: store.Close}
	if listener == nil {
		address, transport := raft.NewInmemTransport(raft.ServerAddress(cfg.NodeID))
		n.transport, n.voters = transport, []raft.Server{{ID: raft.ServerID(cfg.NodeID), Address: address}}
		return start(cfg, n, log, now)
	}
	switch {
	case cfg.Name == "":
		return nil, errors.New("the raft group has no name: name the run")
	case cfg.TLS != nil:
		if err := checkCertificate(cfg.TLS, now()); err != nil {
			return nil, err
		}
	}
	if !cfg.Join {
		if n.voters, err = parsePeers(cfg.Peers); err != nil {
			return nil, err
		}
	}
	instance, err := openInstance(dir)
	if err != nil {
		return nil, err
	}
	n.layer = &layer{
		identity:   identity{cluster: cfg.Name, node: cfg.NodeID, instance: instance},
		advertised: cfg.Advertised(), listener: listener, security: cfg.TLS, log: log, now: now,
	}
	n.layer.start()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.layer, MaxPool: 3, Timeout: networkWait, Logger: raftLogger(log, now), MsgpackUseNewTimeFormat: true,
	})
	n.transport = transport
	c, err := start(cfg, n, log, now)
	if err != nil {
		return nil, errors.Join(err, transport.Close(), n.layer.Close())
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
