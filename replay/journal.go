package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/forager-rl/forager"
)

// journalLimit is the size at which the journal is rewritten as one event.
const journalLimit = 4 << 20

// event is one entry of the journal. A rewritten journal begins with one event
// that stands for all that came before.
type event struct {
	Epoch   uint64   `json:"epoch,omitempty"`   // the learner epoch from here on
	Sampled []uint64 `json:"sampled,omitempty"` // groups that were learned from and stay
	Removed []uint64 `json:"removed,omitempty"` // groups that left the table
	Gone    keyset   `json:"gone,omitempty"`    // all groups that had left before
}

// journal is the append-only half of a table that says what happened to groups.
type journal struct {
	path   string
	sync   bool
	logger *slog.Logger
	file   *os.File
	size   int64
}

// open reads the journal, or begins one, and calls each for every event.
func (j *journal) open(each func(event)) error {
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	j.file = file
	end, damaged, err := scanFrames(file, func(_ frame, payload []byte) error {
		var e event
		if err := json.Unmarshal(payload, &e); err != nil {
			return fmt.Errorf("journal: %w: %w", forager.ErrCorrupt, err)
		}
		each(e)
		return nil
	})
	if err != nil {
		return err
	}
	if damaged > 0 {
		return forager.WithHint(fmt.Errorf("journal: %w: %d damaged entries", forager.ErrCorrupt, damaged),
			"restore the run directory from a backup, or remove its replay folder to roll out again")
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > end {
		j.logger.Warn("torn tail cut off", "file", filepath.Base(j.path), "bytes", info.Size()-end)
		err = file.Truncate(end)
	}
	j.size = end
	return err
}

// append writes one event.
func (j *journal) append(e event) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return err
	}
	at, err := appendFrame(j.file, j.size, payload)
	if err != nil {
		return err
	}
	j.size = at.end()
	if j.sync {
		return j.file.Sync()
	}
	return nil
}

func (j *journal) flush() error { return j.file.Sync() }

// long reports whether it is time to rewrite.
func (j *journal) long() bool { return j.size > journalLimit }

// rewrite replaces everything by one event, atomically.
func (j *journal) rewrite(e event) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(j.path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	at, err := appendFrame(file, 0, payload)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(j.path+".tmp", j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	old := j.file
	j.file, j.size = file, at.end()
	return errors.Join(old.Close(), syncDir(filepath.Dir(j.path)))
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
