package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"os"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
	"github.com/forager-rl/forager/internal/wholefile"
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
	if err := wholefile.Write(path, fill); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
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
