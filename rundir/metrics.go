package rundir

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
)

// Metrics is the append-only metrics.jsonl: one JSON object a line, "step"
// first, then the values by name. A value that is not finite is written as null.
type Metrics struct {
	file *os.File
	size int64 // of the whole lines
	last int64 // newest step, -1 before the first
}

// MetricsRow is one line of metrics.jsonl.
type MetricsRow struct {
	Step   uint64
	Values map[string]float64 // NaN where the line has null
}

// OpenMetrics opens the run's metrics.jsonl to continue after resumeStep, the
// step of the checkpoint that the run resumes from. Lines of later steps are
// dropped, because those steps are computed again, and so is a torn last line.
// A new run passes 0.
//
// The lines that stay are moved to a new file: a learner that was replaced and
// still has the old one open writes where nobody reads. held is asked right
// before the new file takes the place of the old one; its error is returned.
func (d *Dir) OpenMetrics(resumeStep uint64, held func() error) (*Metrics, error) {
	m := &Metrics{last: -1}
	if err := m.open(d.MetricsPath(), resumeStep, held); err != nil {
		return nil, fmt.Errorf("open metrics: %w", err)
	}
	return m, nil
}

func (m *Metrics) open(path string, resumeStep uint64, held func() error) error {
	old, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }() // opened for reading: nothing is lost
	err = scanMetrics(old, path, func(row MetricsRow, end int64) bool {
		if row.Step > resumeStep {
			return false
		}
		m.last, m.size = int64(row.Step), end
		return true
	})
	if err != nil {
		return err
	}
	folder, prefix := filepath.Dir(path), wholefile.TempPrefix+filepath.Base(path)+"-"
	if err := removeWithPrefix(folder, prefix); err != nil { // left by a killed process
		return err
	}
	if m.file, err = os.CreateTemp(folder, prefix); err != nil {
		return err
	}
	_, err = old.Seek(0, io.SeekStart)
	if err == nil {
		_, err = io.CopyN(m.file, old, m.size)
	}
	if err == nil {
		err = errors.Join(m.file.Chmod(0o644), m.file.Sync())
	}
	if err == nil {
		err = held()
	}
	if err == nil {
		err = os.Rename(m.file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(m.file.Name()), m.file.Close())
	}
	return wholefile.Sync(folder)
}

func removeWithPrefix(folder, prefix string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Append writes the line of a step. It answers forager.ErrStale when the step
// is not above the last one. On any error the file is as it was.
func (m *Metrics) Append(step uint64, values map[string]float64) error {
	if step > math.MaxInt64 || int64(step) <= m.last {
		return fmt.Errorf("append metrics of step %d: %w: step %d is written", step, forager.ErrStale, m.last)
	}
	line, err := encodeMetrics(step, values)
	if err != nil {
		return fmt.Errorf("append metrics of step %d: %w", step, err)
	}
	if _, err := m.file.Write(line); err != nil {
		err = errors.Join(err, m.file.Truncate(m.size))
		_, seekErr := m.file.Seek(m.size, io.SeekStart)
		return fmt.Errorf("append metrics of step %d: %w", step, errors.Join(err, seekErr))
	}
	m.size += int64(len(line))
	m.last = int64(step)
	return nil
}

// Sync brings the lines to disk. Called before a checkpoint is saved, it makes
// sure that a resumed run finds every line up to the checkpoint, after a power
// loss as well.
func (m *Metrics) Sync() error { return m.file.Sync() }

// Close closes the file.
func (m *Metrics) Close() error {
	if err := m.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close metrics: %w", err)
	}
	return nil
}

// encodeMetrics gives the line of a step, with names in alphabetical order.
func encodeMetrics(step uint64, values map[string]float64) ([]byte, error) {
	line := strconv.AppendUint([]byte(`{"step":`), step, 10)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == "step" {
			return nil, errors.New("a value is named step")
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		line = append(append(append(line, ','), key...), ':')
		if v := values[name]; math.IsNaN(v) || math.IsInf(v, 0) {
			line = append(line, "null"...)
		} else {
			number, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			line = append(line, number...)
		}
	}
	return append(line, '}', '\n'), nil
}

// ReadMetrics reads a metrics.jsonl, also one that is being written: a torn last
// line is left out. It answers forager.ErrCorrupt with the line's number when a
// line before the last cannot be read.
func ReadMetrics(path string) ([]MetricsRow, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read metrics %s: %w", path, forager.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing is lost
	var rows []MetricsRow
	err = scanMetrics(f, path, func(row MetricsRow, _ int64) bool {
		rows = append(rows, row)
		return true
	})
	return rows, err
}

// scanMetrics gives the rows with the offset behind each, until visit returns
// false. It leaves out a last line that is torn.
func scanMetrics(r io.Reader, path string, visit func(row MetricsRow, end int64) bool) error {
	in := bufio.NewReader(r)
	end, last := int64(0), int64(-1)
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what is left has no line end: torn
		}
		if err != nil {
			return err
		}
		end += int64(len(line))
		row, err := decodeMetrics(line)
		if err == nil && int64(row.Step) <= last {
			err = fmt.Errorf("step %d after step %d", row.Step, last)
		}
		if err != nil {
			if _, peekErr := in.Peek(1); errors.Is(peekErr, io.EOF) {
				return nil
			}
			return fmt.Errorf("%s line %d: %w: %w", path, number, forager.ErrCorrupt, err)
		}
		last = int64(row.Step)
		if !visit(row, end) {
			return nil
		}
	}
}

func decodeMetrics(line []byte) (MetricsRow, error) {
	var fields map[string]*json.Number
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&fields); err != nil {
		return MetricsRow{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return MetricsRow{}, errors.New("more than one value")
	}
	if fields["step"] == nil {
		return MetricsRow{}, errors.New("no step")
	}
	step, err := strconv.ParseUint(fields["step"].String(), 10, 63)
	if err != nil {
		return MetricsRow{}, err
	}
	row := MetricsRow{Step: step, Values: make(map[string]float64, len(fields)-1)}
	for name, number := range fields {
		switch {
		case name == "step":
		case number == nil:
			row.Values[name] = math.NaN()
		default:
			if row.Values[name], err = number.Float64(); err != nil {
				return MetricsRow{}, err
			}
		}
	}
	return row, nil
}
