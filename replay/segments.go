package replay

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/forager-rl/forager"
)

// meta is what the table must know about a group without decoding its batch. It
// is stored in front of the batch, so that opening a table decodes nothing.
type meta struct {
	Key      uint64          `json:"key"`
	Oldest   forager.Version `json:"oldest"` // of any of its tokens
	Rollouts []string        `json:"rollouts"`
	Trace    forager.Trace   `json:"trace,omitzero"` // of its insertion
}

// segment is one append-only file of batches.
type segment struct {
	number int
	file   *os.File
	size   int64
	live   int // groups that are still in the table
}

// stored is where a batch lies; the groups of one batch share it.
type stored struct {
	segment *segment
	frame   frame
	metaLen int
}

// size is the length of the batch in bytes.
func (s *stored) size() int { return s.frame.length - s.metaLen }

// segments is the data half of a table on disk.
type segments struct {
	dir    string
	limit  int64
	sync   bool
	logger *slog.Logger
	list   []*segment // ascending; the last one is written to
}

func segmentPath(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("segment-%08d", number))
}

// open reads all segments and calls each for every batch, in order.
func (s *segments) open(each func(at *stored, groups []meta)) error {
	paths, err := filepath.Glob(filepath.Join(s.dir, "segment-*"))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	for _, path := range paths {
		var number int
		if _, err := fmt.Sscanf(filepath.Base(path), "segment-%08d", &number); err != nil {
			return fmt.Errorf("file %s is not a segment: %w", path, err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		seg := &segment{number: number, file: file}
		s.list = append(s.list, seg)
		end, damaged, err := scanFrames(file, func(at frame, payload []byte) error {
			metaLen, groups, err := decodeMeta(payload)
			if err != nil {
				return fmt.Errorf("segment %d at %d: %w", number, at.offset, err)
			}
			each(&stored{segment: seg, frame: at, metaLen: metaLen}, groups)
			return nil
		})
		if err != nil {
			return err
		}
		if damaged > 0 {
			s.logger.Error("damaged batches left out", "segment", number, "batches", damaged)
		}
		if seg.size, err = s.trim(file, end); err != nil {
			return err
		}
	}
	return nil
}

// trim cuts off what a crash left behind the last whole frame.
func (s *segments) trim(file *os.File, end int64) (int64, error) {
	info, err := file.Stat()
	if err != nil || info.Size() == end {
		return end, err
	}
	s.logger.Warn("torn tail cut off", "file", filepath.Base(file.Name()), "bytes", info.Size()-end)
	return end, file.Truncate(end)
}

// append stores a batch.
func (s *segments) append(groups []meta, raw []byte) (*stored, error) {
	if len(s.list) == 0 || s.list[len(s.list)-1].size >= s.limit {
		if err := s.rotate(); err != nil {
			return nil, err
		}
	}
	header, err := encodeMeta(groups)
	if err != nil {
		return nil, err
	}
	seg := s.list[len(s.list)-1]
	at, err := appendFrame(seg.file, seg.size, header, raw)
	if err != nil {
		return nil, err
	}
	if s.sync {
		if err := seg.file.Sync(); err != nil {
			return nil, errors.Join(err, seg.file.Truncate(seg.size))
		}
	}
	seg.size = at.end()
	return &stored{segment: seg, frame: at, metaLen: len(header)}, nil
}

func (s *segments) rotate() error {
	number := 0
	if n := len(s.list); n > 0 {
		number = s.list[n-1].number + 1
	}
	file, err := os.OpenFile(segmentPath(s.dir, number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if s.sync {
		if err := syncDir(s.dir); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	s.list = append(s.list, &segment{number: number, file: file})
	return nil
}

// read gives a batch as it was stored.
func (s *segments) read(at *stored) ([]byte, error) {
	payload, err := readFrame(at.segment.file, at.frame)
	if err != nil {
		return nil, err
	}
	return payload[at.metaLen:], nil
}

// dead reports whether any full segment holds no live group.
func (s *segments) dead() bool {
	return slices.ContainsFunc(s.list, func(seg *segment) bool { return seg.live == 0 && seg.size >= s.limit })
}

// prune deletes full segments without live groups. The journal must be durable.
func (s *segments) prune() error {
	var errs []error
	s.list = slices.DeleteFunc(s.list, func(seg *segment) bool {
		if seg.live > 0 || seg.size < s.limit {
			return false
		}
		errs = append(errs, seg.file.Close(), os.Remove(segmentPath(s.dir, seg.number)))
		return true
	})
	return errors.Join(errs...)
}

func (s *segments) bytes() int64 {
	n := int64(0)
	for _, seg := range s.list {
		n += seg.size
	}
	return n
}

func (s *segments) close() error {
	var errs []error
	for _, seg := range s.list {
		errs = append(errs, seg.file.Close())
	}
	s.list = nil
	return errors.Join(errs...)
}

// encodeMeta is the JSON of the metas behind its length.
func encodeMeta(groups []meta) ([]byte, error) {
	data, err := json.Marshal(groups)
	if err != nil {
		return nil, err
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...), nil
}

func decodeMeta(payload []byte) (length int, groups []meta, err error) {
	if len(payload) < 4 {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes", forager.ErrCorrupt, len(payload))
	}
	length = 4 + int(binary.LittleEndian.Uint32(payload))
	if length > len(payload) {
		return 0, nil, fmt.Errorf("%w: metadata is longer than its frame", forager.ErrCorrupt)
	}
	if err := json.Unmarshal(payload[4:length], &groups); err != nil {
		return 0, nil, fmt.Errorf("%w: metadata: %w", forager.ErrCorrupt, err)
	}
	return length, groups, nil
}
