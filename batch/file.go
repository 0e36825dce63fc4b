package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// The file form is the stream form between a head and a footer: magic and two
// bytes of padding, the stream, the footer, its length as four bytes, magic.
const (
	fileHead = "ARROW1\x00\x00"
	fileTail = "ARROW1"
)

// WriteFile writes groups as an Arrow IPC file, the form that
// pyarrow.ipc.open_file reads, under the rules of EncodeGroups. The file appears
// under its name whole and synced, or not at all; an older one is replaced.
func WriteFile(path string, groups []forager.Group) error {
	if err := checkGroups(groups); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return writeWhole(path, func(f *os.File) error { return rolloutTable.writeFile(f, rolloutRows(groups)) })
}

// writeFile writes the rows in the file form.
func (t table[R]) writeFile(f *os.File, rows iter.Seq[*R]) error {
	schema := t.schema()
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(schema))
	if err != nil {
		return err
	}
	return t.write(w, schema, memory.DefaultAllocator, rows)
}

// writeWhole makes a file appear under its name whole and synced, or not at all;
// an older one is replaced.
func writeWhole(path string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = fill(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to tell
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncFolder makes a rename in the folder survive a power cut.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// ReadFile reads a file of WriteFile, in the same order and under the rules of
// DecodeGroups. A missing file wraps fs.ErrNotExist.
func ReadFile(path string) ([]forager.Group, error) {
	var groups []forager.Group
	err := readWhole(path, func(m *messages) (err error) {
		groups, err = decodeGroups(memory.DefaultAllocator, m)
		return err
	})
	return groups, err
}

// readWhole decodes what is in a file of the file form.
func readWhole(path string, decode func(*messages) error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	stream, err := cutFile(data)
	if err == nil {
		err = decode(&messages{data: stream})
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// cutFile gives the stream in an Arrow IPC file. The footer repeats the schema
// and the places of the records; one who reads everything does not need it.
func cutFile(data []byte) ([]byte, error) {
	tail := len(data) - len(fileTail) - 4
	if tail < len(fileHead) || !bytes.HasPrefix(data, []byte(fileHead)) || !bytes.HasSuffix(data, []byte(fileTail)) {
		return nil, forager.WithHint(fmt.Errorf("not a whole Arrow IPC file: %w", forager.ErrCorrupt), "delete it or restore a copy")
	}
	footer := int64(binary.LittleEndian.Uint32(data[tail:]))
	if footer > int64(tail-len(fileHead)) {
		return nil, fmt.Errorf("footer of %d bytes in a file of %d: %w", footer, len(data), forager.ErrCorrupt)
	}
	return data[len(fileHead) : tail-int(footer)], nil
}
