package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// latestFile names the newest complete checkpoint, for people and other
// programs. Latest does not depend on it.
const latestFile = "latest"

// replacedPrefix marks a checkpoint that is moved aside while one of the same
// step takes its place.
const replacedPrefix = ".replaced-"

// Checkpoints are the checkpoints of a run. One process at a time saves; any may
// read. Save, Latest and List may be called from several goroutines.
type Checkpoints struct {
	dir  string
	keep int
	mu   sync.Mutex // one Save at a time
}

// Checkpoint is one complete checkpoint on disk.
type Checkpoint struct {
	Step   uint64
	Dir    string // where its files lie
	Digest string // "sha256:" and hex, over the names, sizes and digests of all files
	Bytes  int64
	// Skipped tells, from Latest, why newer checkpoints were not taken, newest
	// first. Each wraps forager.ErrCorrupt. Report them.
	Skipped []error
}

// Checkpoints gives the checkpoints of the run for saving; the newest keep, at
// least 1, are kept. What a killed Save left behind is cleaned up, so the
// caller holds the lock of the role that saves.
func (d *Dir) Checkpoints(keep int) (*Checkpoints, error) {
	if keep < 1 {
		return nil, fmt.Errorf("keep %d checkpoints: at least 1 is needed", keep)
	}
	c := d.ReadCheckpoints()
	c.keep = keep
	return c, c.clean()
}

// ReadCheckpoints gives the checkpoints of the run for reading, beside a process
// that may be saving. Its Save is not allowed.
func (d *Dir) ReadCheckpoints() *Checkpoints {
	return &Checkpoints{dir: filepath.Join(d.path, checkpointsDir)}
}

// clean removes unfinished writes and puts back what they had moved aside.
func (c *Checkpoints) clean() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("open checkpoints: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		switch name, replaced := strings.CutPrefix(e.Name(), replacedPrefix); {
		case replaced && !exists(filepath.Join(c.dir, name)):
			err = errors.Join(err, os.Rename(path, filepath.Join(c.dir, name)))
		case replaced, strings.HasPrefix(e.Name(), wholefile.TempPrefix):
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	if err != nil {
		return fmt.Errorf("clean up checkpoints: %w", err)
	}
	return nil
}

// Save makes the checkpoint of a step. write puts regular files, in folders if
// it likes, into dir. They are synced and appear under the step's name at once,
// or not at all: on any error, a full disk for one, what was there stays. A
// checkpoint of the same step is replaced; those of later steps belong to a
// history that the run has left, and are removed, as are all but the newest.
func (c *Checkpoints) Save(step uint64, write func(dir string) error) (Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keep < 1 {
		return Checkpoint{}, errors.New("save checkpoint: these were opened for reading")
	}
	saved, err := c.save(step, write)
	if err != nil {
		err = fmt.Errorf("save checkpoint of step %d: %w", step, err)
		if old, latestErr := c.latestLocked(); latestErr == nil {
			err = forager.WithHint(err, fmt.Sprintf("the one of step %d is kept: make room in %s, then resume", old.Step, c.dir))
		}
		return Checkpoint{}, err
	}
	return saved, c.prune(step)
}

func (c *Checkpoints) save(step uint64, write func(dir string) error) (Checkpoint, error) {
	temp, err := os.MkdirTemp(c.dir, wholefile.TempPrefix+stepName(step)+"-")
	if err != nil {
		return Checkpoint{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // after the rename there is nothing left to remove
	if err := os.Chmod(temp, 0o755); err != nil {
		return Checkpoint{}, err
	}
	if err := write(temp); err != nil {
		return Checkpoint{}, err
	}
	saved, err := seal(temp, step)
	if err != nil {
		return Checkpoint{}, err
	}
	saved.Dir = c.path(step)
	aside := filepath.Join(c.dir, replacedPrefix+stepName(step))
	if exists(saved.Dir) {
		if err := os.Rename(saved.Dir, aside); err != nil {
			return Checkpoint{}, err
		}
	}
	if err := os.Rename(temp, saved.Dir); err != nil {
		if exists(aside) {
			err = errors.Join(err, os.Rename(aside, saved.Dir))
		}
		return Checkpoint{}, err
	}
	if err := wholefile.Sync(c.dir); err != nil {
		return Checkpoint{}, err
	}
	if err := os.RemoveAll(aside); err != nil {
		return Checkpoint{}, err
	}
	return saved, writeFile(filepath.Join(c.dir, latestFile), []byte(stepName(step)+"\n"))
}

// Latest finds the newest checkpoint whose files are all there with their right
// digests. It reads all of their bytes. It answers forager.ErrNotFound when the
// run has no checkpoint and forager.ErrCorrupt when all of them are damaged.
func (c *Checkpoints) Latest() (Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latestLocked()
}

func (c *Checkpoints) latestLocked() (Checkpoint, error) {
	steps, err := c.steps()
	if err != nil {
		return Checkpoint{}, err
	}
	if len(steps) == 0 {
		return Checkpoint{}, forager.WithHint(fmt.Errorf("checkpoint in %s: %w", c.dir, forager.ErrNotFound),
			"the run ended before its first one: start a new run")
	}
	var skipped []error
	for _, step := range slices.Backward(steps) {
		found, err := verify(c.path(step), step)
		if err == nil {
			found.Skipped = skipped
			return found, nil
		}
		skipped = append(skipped, err)
	}
	return Checkpoint{}, forager.WithHint(fmt.Errorf("none of %d checkpoints in %s is usable: the newest: %w", len(skipped), c.dir, skipped[0]),
		"restore the folder from a backup, or start a new run")
}

// List gives the steps that have a checkpoint, ascending. Their files are not
// checked; Latest does that.
func (c *Checkpoints) List() ([]uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steps()
}

// prune removes what Save(step) made superfluous.
func (c *Checkpoints) prune(step uint64) error {
	steps, err := c.steps()
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearch(steps, step)
	left := steps[i+1:] // of a history that the run has left
	old := steps[:max(0, i+1-c.keep)]
	for _, s := range slices.Concat(left, old) {
		// Renamed first, so that a half-removed one is never taken for damaged.
		gone := filepath.Join(c.dir, wholefile.TempPrefix+"gone-"+stepName(s))
		if err := errors.Join(os.Rename(c.path(s), gone), os.RemoveAll(gone)); err != nil {
			return fmt.Errorf("remove checkpoint of step %d: %w", s, err)
		}
	}
	return nil
}

// steps lists the checkpoints' steps, ascending.
func (c *Checkpoints) steps() ([]uint64, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var steps []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "step-")
		if !ok || !e.IsDir() {
			continue
		}
		if step, err := strconv.ParseUint(digits, 10, 64); err == nil && stepName(step) == e.Name() {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

func (c *Checkpoints) path(step uint64) string { return filepath.Join(c.dir, stepName(step)) }

func stepName(step uint64) string { return fmt.Sprintf("step-%08d", step) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
