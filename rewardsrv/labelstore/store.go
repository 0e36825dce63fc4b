package labelstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/forager-rl/forager"
)

// format names the layout of the file; another one is a foreign file.
const format = "forager labels 1"

// Buckets and the keys of the second.
var (
	labelsBucket = []byte("labels") // label key -> encoded Record
	metaBucket   = []byte("meta")

	formatKey   = []byte("format")
	sequenceKey = []byte("sequence") // of the stream, applied with the labels up to it
	countKey    = []byte("count")    // of labels
	openKey     = []byte("open")     // there while the file is open: it was not closed in order
	modelKey    = []byte("model")    // sequence, then the state of a reward model's trainer
)

// Store is an open index. It is safe for concurrent use.
type Store struct {
	db *bbolt.DB
}

// Open opens the index or makes an empty one. A file that another process has
// open gives forager.ErrInUse. One that is damaged or foreign is renamed to
// path + ".aside", where it replaces an older one, and said so.
func Open(path string, logger *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("label index: %w", err)
	}
	s, err := open(path)
	if err == nil || errors.Is(err, forager.ErrInUse) || !errors.Is(err, forager.ErrCorrupt) {
		return s, err
	}
	aside := path + ".aside"
	if renamed := os.Rename(path, aside); renamed != nil {
		return nil, errors.Join(err, renamed)
	}
	logger.Error("the label index cannot be read: it is set aside and rebuilt from the stream of annotations",
		"file", path, "aside", aside, "error", err)
	return open(path)
}

func open(path string) (*Store, error) {
	// No call of fsync: a killed process loses nothing by that, and what a power
	// cut damages is found at the next start and read from the stream again.
	options := bbolt.Options{Timeout: lockWait, NoSync: true, FreelistType: bbolt.FreelistMapType}
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o644, &options)
		return err
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("label index %s: %w", path, forager.ErrInUse)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("label index: %w", err)
	case err != nil:
		return nil, fmt.Errorf("label index %s: %w: %w", path, forager.ErrCorrupt, err)
	}
	s := &Store{db: db}
	if err := guard(func() error { return s.prepare(path) }); err != nil {
		// A panic may have left a lock of the file's transaction behind, which
		// Close would wait for; its descriptor is then left to the process.
		if !errors.Is(err, errPanic) {
			err = errors.Join(err, db.Close())
		}
		return nil, fmt.Errorf("label index %s: %w", path, err)
	}
	return s, nil
}

// lockWait is how long to wait for another process to let go of the file.
const lockWait = 300 * time.Millisecond

// prepare makes the buckets of a new file and checks an old one, wholly when it
// was not closed in order.
func (s *Store) prepare(path string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			if first, _ := tx.Cursor().First(); first != nil {
				return fmt.Errorf("%w: a file of something else", forager.ErrCorrupt)
			}
			var err error
			if meta, err = tx.CreateBucket(metaBucket); err != nil {
				return err
			}
			if _, err = tx.CreateBucket(labelsBucket); err != nil {
				return err
			}
			return errors.Join(meta.Put(formatKey, []byte(format)), meta.Put(openKey, []byte{1}))
		}
		if got := string(meta.Get(formatKey)); got != format || tx.Bucket(labelsBucket) == nil {
			return fmt.Errorf("%w: format %q, want %q", forager.ErrCorrupt, got, format)
		}
		if info, err := os.Stat(path); err != nil || info.Size() < tx.Size() {
			return fmt.Errorf("%w: the file is cut off", forager.ErrCorrupt)
		}
		if meta.Get(openKey) == nil {
			return meta.Put(openKey, []byte{1})
		}
		return check(tx)
	})
}

// check reads every label.
func check(tx *bbolt.Tx) error {
	n := uint64(0)
	err := tx.Bucket(labelsBucket).ForEach(func(k, v []byte) error {
		n++
		_, err := decode(k, v)
		return err
	})
	if want := number(tx.Bucket(metaBucket).Get(countKey)); err == nil && n != want {
		err = fmt.Errorf("%d labels, want %d", n, want)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", forager.ErrCorrupt, err)
	}
	return nil
}

// Close marks the file as whole and closes it. Later calls do nothing.
func (s *Store) Close() error {
	err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(openKey) })
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return nil
	}
	if err = errors.Join(err, s.db.Sync(), s.db.Close()); err != nil {
		return fmt.Errorf("close label index: %w", err)
	}
	return nil
}

// Get finds a label.
func (s *Store) Get(key string) (r Record, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		data := tx.Bucket(labelsBucket).Get([]byte(key))
		if data == nil {
			return nil
		}
		found = true
		r, err = decode([]byte(key), data)
		return err
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("read label index: %w", err)
	}
	return r, found, nil
}

// Put adds what a message of the stream says, together with its sequence, in one
// transaction. The first label of a key stays; a failure gives way to a label.
func (s *Store) Put(sequence uint64, records []Record) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		labels, meta := tx.Bucket(labelsBucket), tx.Bucket(metaBucket)
		count := number(meta.Get(countKey))
		for _, r := range records {
			if old := labels.Get([]byte(r.Key)); old == nil {
				count++
			} else if known, err := decode([]byte(r.Key), old); err != nil {
				return err
			} else if known.Value != nil || r.Value == nil {
				continue
			}
			data, err := encode(r)
			if err != nil {
				return err
			}
			if err := labels.Put([]byte(r.Key), data); err != nil {
				return err
			}
		}
		return errors.Join(meta.Put(sequenceKey, bytesOf(sequence)), meta.Put(countKey, bytesOf(count)))
	})
	if err != nil {
		return fmt.Errorf("write label index: %w", err)
	}
	return nil
}

// Sequence is that of the last message put, 0 for none.
func (s *Store) Sequence() (sequence uint64, err error) {
	return s.read(sequenceKey)
}

// Len is the number of keys.
func (s *Store) Len() (int, error) {
	n, err := s.read(countKey)
	return int(n), err
}

func (s *Store) read(key []byte) (n uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		n = number(tx.Bucket(metaBucket).Get(key))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read label index: %w", err)
	}
	return n, nil
}

// Each calls fn for every key, in the order of the keys, until fn fails. fn must
// not call the store.
func (s *Store) Each(fn func(Record) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(labelsBucket).ForEach(func(k, v []byte) error {
			r, err := decode(k, v)
			if err != nil {
				return fmt.Errorf("read label index: %w", err)
			}
			return fn(r)
		})
	})
}

// Reset empties the index, for a stream that is not the one it was built from.
func (s *Store) Reset() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(labelsBucket); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(labelsBucket); err != nil {
			return err
		}
		meta := tx.Bucket(metaBucket)
		return errors.Join(meta.Delete(sequenceKey), meta.Delete(countKey), meta.Delete(modelKey))
	})
	if err != nil {
		return fmt.Errorf("empty label index: %w", err)
	}
	return nil
}

// PutTrainer keeps the state of a reward model's trainer that has read the
// stream up to sequence. It replaces an older one.
func (s *Store) PutTrainer(sequence uint64, state []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(modelKey, append(bytesOf(sequence), state...))
	})
	if err != nil {
		return fmt.Errorf("keep the trainer's state: %w", err)
	}
	return nil
}

// Trainer gives what PutTrainer kept; state is nil when there is nothing.
func (s *Store) Trainer() (sequence uint64, state []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if data := tx.Bucket(metaBucket).Get(modelKey); len(data) >= 8 {
			sequence, state = number(data[:8]), append([]byte{}, data[8:]...)
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read the trainer's state: %w", err)
	}
	return sequence, state, nil
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func bytesOf(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
