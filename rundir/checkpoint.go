package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// Checkpoints are the checkpoints of a run. One learner at a time saves, under
// its epoch; any process may read. Save, Latest and List may be called from
// several goroutines.
type Checkpoints struct {
	dir   string
	keep  int
	epoch uint64
	mu    sync.Mutex // one Save at a time
}

// Checkpoint is one complete checkpoint on disk.
type Checkpoint struct {
	Step   uint64
	Epoch  uint64 // of the learner that wrote it; 0: from before epochs were kept
	Dir    string // where its files lie
	Digest string // "sha256:" and hex, over the names, sizes and digests of all files
	Bytes  int64
	// Skipped tells, from Latest, why newer checkpoints were not taken, newest
	// first. Each wraps forager.ErrCorrupt. Report them.
	Skipped []error
}

// Checkpoints gives the checkpoints of the run to the learner of an epoch, for
// saving; the newest keep, at least 1, are kept. What a killed Save left behind
// is cleaned up.
func (d *Dir) Checkpoints(keep int, epoch uint64) (*Checkpoints, error) {
	if keep < 1 {
		return nil, fmt.Errorf("keep %d checkpoints: at least 1 is needed", keep)
	}
	c := d.ReadCheckpoints()
	c.keep, c.epoch = keep, epoch
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
		case replaced:
			err = errors.Join(err, os.RemoveAll(path))
		case strings.HasPrefix(e.Name(), wholefile.TempPrefix):
			// One that cannot be removed is being written to, by a learner that
			// does not know yet that it has been replaced. The next start tries again.
			_ = os.RemoveAll(path)
		}
	}
	if err != nil {
		return fmt.Errorf("clean up checkpoints: %w", err)
	}
	return nil
}

// Save makes the checkpoint of a step. write puts regular files, in folders if
// it likes, into dir. They are synced and appear under the name of step and
// epoch at once, or not at all: on any error, a full disk for one, what was there
// stays. A checkpoint of the same step and epoch is replaced; those of the same
// and later steps belong to a history that the run has left, and are removed, as
// are all but the newest. Checkpoints of later epochs are not touched. held is
// asked right before anything that others see is changed; its error ends the
// save.
func (c *Checkpoints) Save(step uint64, write func(dir string) error, held func() error) (Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keep < 1 {
		return Checkpoint{}, errors.New("save checkpoint: these were opened for reading")
	}
	saved, err := c.save(place{c.epoch, step}, write, held)
	if errors.Is(err, forager.ErrFenced) {
		return Checkpoint{}, fmt.Errorf("save checkpoint of step %d: %w", step, err)
	}
	if err != nil {
		err = fmt.Errorf("save checkpoint of step %d: %w", step, err)
		if old, latestErr := c.latestLocked(nil); latestErr == nil {
			err = forager.WithHint(err, fmt.Sprintf("the one of step %d is kept: make room in %s, then resume", old.Step, c.dir))
		}
		return Checkpoint{}, err
	}
	return saved, c.prune(place{c.epoch, step}, held)
}

func (c *Checkpoints) save(p place, write func(dir string) error, held func() error) (Checkpoint, error) {
	temp, err := os.MkdirTemp(c.dir, wholefile.TempPrefix+p.name()+"-")
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
	saved, err := seal(temp, p.step)
	if err != nil {
		return Checkpoint{}, err
	}
	saved.Epoch, saved.Dir = p.epoch, c.path(p)
	if err := held(); err != nil {
		return Checkpoint{}, err
	}
	aside := filepath.Join(c.dir, replacedPrefix+p.name())
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
	if err := held(); err != nil {
		return Checkpoint{}, err
	}
	return saved, writeFile(filepath.Join(c.dir, latestFile), []byte(p.name()+"\n"))
}

// Latest finds the newest checkpoint whose files are all there with their right
// digests. It reads all of their bytes. recorded are the names of folders that
// everybody has agreed on, oldest first: the newest of these that is whole comes
// before any that is not among them, which somebody may have written who was
// replaced already. It answers forager.ErrNotFound when the run has no checkpoint
// and forager.ErrCorrupt when all of them are damaged.
func (c *Checkpoints) Latest(recorded ...string) (Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latestLocked(recorded)
}

func (c *Checkpoints) latestLocked(recorded []string) (Checkpoint, error) {
	places, err := c.places()
	if err != nil {
		return Checkpoint{}, err
	}
	if len(places) == 0 {
		return Checkpoint{}, forager.WithHint(fmt.Errorf("checkpoint in %s: %w", c.dir, forager.ErrNotFound),
			"the run ended before its first one: start a new run")
	}
	var skipped []error
	for _, p := range preferred(places, recorded) {
		found, err := verify(c.path(p), p.step)
		if err == nil {
			found.Epoch, found.Skipped = p.epoch, skipped
			return found, nil
		}
		skipped = append(skipped, err)
	}
	return Checkpoint{}, forager.WithHint(fmt.Errorf("none of %d checkpoints in %s is usable: the newest: %w", len(skipped), c.dir, skipped[0]),
		"restore the folder from a backup, or start a new run")
}

// preferred puts the places in the order in which they are tried.
func preferred(places []place, recorded []string) []place {
	var order []place
	for _, name := range slices.Backward(recorded) {
		if p, ok := parsePlace(name); ok && slices.Contains(places, p) {
			order = append(order, p)
		}
	}
	for _, p := range slices.Backward(places) {
		if !slices.Contains(order, p) {
			order = append(order, p)
		}
	}
	return order
}

// List gives the names of the run's checkpoints, oldest first. Their files are
// not checked; Latest does that.
func (c *Checkpoints) List() ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	places, err := c.places()
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.name()
	}
	return names, err
}

// Epoch is the highest of the epochs that have left a checkpoint.
func (c *Checkpoints) Epoch() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	places, err := c.places()
	if len(places) == 0 {
		return 0, err
	}
	return places[len(places)-1].epoch, nil
}

// prune removes what a save made superfluous.
func (c *Checkpoints) prune(saved place, held func() error) error {
	places, err := c.places()
	if err != nil {
		return err
	}
	for _, p := range superfluous(places, saved, c.keep) {
		if err := held(); err != nil {
			return err
		}
		// Renamed first, so that a half-removed one is never taken for damaged.
		gone := filepath.Join(c.dir, wholefile.TempPrefix+"gone-"+p.name())
		if err := errors.Join(os.Rename(c.path(p), gone), os.RemoveAll(gone)); err != nil {
			return fmt.Errorf("remove checkpoint %s: %w", p.name(), err)
		}
	}
	return nil
}

// places lists the checkpoints' places, in order.
func (c *Checkpoints) places() ([]place, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var places []place
	for _, e := range entries {
		if p, ok := parsePlace(e.Name()); ok && e.IsDir() {
			places = append(places, p)
		}
	}
	slices.SortFunc(places, comparePlaces)
	return places, nil
}

func (c *Checkpoints) path(p place) string { return filepath.Join(c.dir, p.name()) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
