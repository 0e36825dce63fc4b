package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
	"github.com/forager-rl/forager/rundir"
)

// weightsFolder is a folder that the processes of a host share: the first of them
// to want a version fetches it, the others read it there. Whatever is wrong with
// the folder costs a fetch and nothing more.
type weightsFolder struct {
	dir     string
	source  weightsSource
	timeout time.Duration // of one exchange with the source
	read    prometheus.Counter
	logger  *slog.Logger
	told    atomic.Bool // that the folder is of no use
}

// weightsLock is the file whose lock the process that fetches has.
const weightsLock = "lock"

func newWeightsFolder(root, run string, source weightsSource, timeout time.Duration, read prometheus.Counter, logger *slog.Logger) (*weightsFolder, error) {
	f := &weightsFolder{dir: filepath.Join(root, run), source: source, timeout: timeout, read: read, logger: logger}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, forager.WithHint(fmt.Errorf("folder for weights: %w", err), "actor.weights_dir must be a folder that the host's actors may write to")
	}
	return f, nil
}

// get implements weightsSource.
func (f *weightsFolder) get(ctx context.Context, m forager.Manifest) ([]byte, error) {
	if m.Object != objectName(m.Epoch, m.Version) { // no name of ours is no name for a file
		return f.source.get(ctx, m)
	}
	if data, err := f.load(m); err == nil {
		return data, nil
	}
	unlock, err := f.lock(ctx, m)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		f.useless(err)
		return f.source.get(ctx, m)
	}
	defer func() { _ = unlock() }()
	data, err := f.load(m) // by whoever had the lock
	if err == nil {
		return data, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		f.logger.Warn("weights in the shared folder are fetched again", "version", m.Version, "error", err)
	}
	if data, err = f.source.get(ctx, m); err != nil {
		return nil, err
	}
	if err := f.keep(m, data); err != nil {
		f.useless(err)
	} else {
		f.told.Store(false)
	}
	return data, nil
}

// load reads a version and checks it.
func (f *weightsFolder) load(m forager.Manifest) ([]byte, error) {
	path := filepath.Join(f.dir, m.Object)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() != m.Bytes {
		return nil, fmt.Errorf("%s has %d bytes, manifest says %d: %w", path, info.Size(), m.Bytes, forager.ErrCorrupt)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkWeights(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.read.Inc()
	return data, nil
}

// checkWeights compares an object with its manifest.
func checkWeights(data []byte, m forager.Manifest) error {
	sum := sha256.Sum256(data)
	if got := "sha256:" + hex.EncodeToString(sum[:]); got != m.Digest {
		return fmt.Errorf("digest is %s, manifest says %s: %w", got, m.Digest, forager.ErrCorrupt)
	}
	return nil
}

// lock waits for as long as a fetch of the version may take.
func (f *weightsFolder) lock(ctx context.Context, m forager.Manifest) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout+time.Duration(m.Bytes>>20)*time.Second)
	defer cancel()
	return rundir.AwaitLock(ctx, filepath.Join(f.dir, weightsLock))
}

// keep writes a version, then removes all but it and the newest one before it,
// which somebody may be reading. The lock is held.
func (f *weightsFolder) keep(m forager.Manifest, data []byte) error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var old []string // ascending: names are in the order of epoch and version
	for _, e := range entries {
		switch {
		case older(e.Name(), m):
			old = append(old, e.Name())
		case strings.HasPrefix(e.Name(), wholefile.TempPrefix): // left by a killed process
			err = errors.Join(err, os.Remove(filepath.Join(f.dir, e.Name())))
		}
	}
	for _, name := range old[:max(0, len(old)-1)] {
		err = errors.Join(err, os.Remove(filepath.Join(f.dir, name)))
	}
	return errors.Join(err, wholefile.Write(filepath.Join(f.dir, m.Object), func(file *os.File) error {
		_, err := file.Write(data)
		return err
	}))
}

// useless says once that the folder does not help.
func (f *weightsFolder) useless(err error) {
	if !f.told.Swap(true) {
		f.logger.Warn("weights are fetched without the shared folder", "folder", f.dir, "error", err)
	}
}
