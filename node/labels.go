package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/bus"
	"github.com/forager-rl/forager/rundir"
)

// LabelsOptions says whose labels to read.
type LabelsOptions struct {
	// Dir is the run directory. While a process carries the run's bus they are
	// read from it; afterwards from a copy of its stream.
	Dir string
	// URL is a NATS server that keeps the labels of the run; empty means the
	// server whose store lies in the run directory.
	URL    string
	Logger *slog.Logger
}

// ReadLabels calls use for every label of a run so far, oldest first, and
// changes nothing of the run. It stops at the first error of use. A run whose
// bus is not to be found answers forager.ErrNotFound.
func ReadLabels(ctx context.Context, cfg Config, o LabelsOptions, use func(forager.Annotation) error) error {
	dir, err := rundir.Open(o.Dir)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "forager-labels-*")
	if err != nil {
		return fmt.Errorf("read labels: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	cfg.Bus.Run, cfg.Bus.URL, cfg.Bus.StoreDir, cfg.Bus.Listen = dir.ID(), o.URL, scratch, "127.0.0.1:0"
	if o.URL == "" {
		if cfg.Bus.URL, err = ownBus(dir, scratch); err != nil {
			return fmt.Errorf("read labels: %w", err)
		}
	}
	if cfg.Bus.URL != "" {
		credentials, err := loadCredentials(cfg.Security, o.Logger, forager.RoleOperator)
		if err != nil {
			return err
		}
		secureBus(&cfg.Bus, credentials, false)
	}
	b, err := bus.OpenReader(ctx, cfg.Bus, o.Logger)
	if err != nil {
		return err
	}
	err = annotations{b, unreadable{logger: o.Logger}}.Each(ctx, use)
	return errors.Join(err, b.Close())
}

// ownBus finds the bus of a run directory: the address of the process that
// carries it or, when there is none, "" and a copy of the labels in scratch.
func ownBus(dir *rundir.Dir, scratch string) (url string, err error) {
	store := storeFolder(dir)
	if _, err := os.Stat(store); err != nil {
		return "", forager.WithHint(fmt.Errorf("bus of run %s: %w", dir.ID(), forager.ErrNotFound),
			"name its NATS server with --nats nats://host:4222")
	}
	if url, err := liveBus(dir); err != nil || url != "" {
		return url, err
	}
	unlock, err := dir.Lock(string(forager.RoleNATS))
	if err != nil {
		return "", err
	}
	return "", errors.Join(bus.CopyStream(store, dir.ID(), bus.Annotations, scratch), unlock())
}

// liveBus is the address of the process that carries the bus of a run directory,
// or "" when there is none.
func liveBus(dir *rundir.Dir) (url string, err error) {
	unlock, err := dir.Lock(string(forager.RoleNATS))
	if errors.Is(err, forager.ErrInUse) {
		return bus.Address(storeFolder(dir))
	}
	if err != nil {
		return "", err
	}
	return "", unlock()
}

// storeFolder is where a run's embedded bus keeps its files.
func storeFolder(dir *rundir.Dir) string { return filepath.Join(dir.Path(), "nats") }
