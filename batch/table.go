package batch

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/forager-rl/forager"
)

// Keys of the Arrow schema metadata.
const (
	schemaKey  = "forager.schema"
	versionKey = "forager.version"
)

// rowsPerRecord bounds a record batch, so that files are read piece by piece
// and list offsets stay far from 2^31.
const rowsPerRecord = 1024

// table is a schema: its name, its major version and its columns.
type table[R any] struct {
	name    string
	version int
	columns []column[R]
}

func (t table[R]) schema() *arrow.Schema {
	meta := arrow.NewMetadata([]string{schemaKey, versionKey}, []string{t.name, strconv.Itoa(t.version)})
	return arrow.NewSchema(arrowFields(t.columns), &meta)
}

// recordWriter is what the writers of the stream and of the file form share.
type recordWriter interface {
	Write(arrow.Record) error
	Close() error
}

// write builds records of the rows and ends the stream. The rows are only read.
func (t table[R]) write(w recordWriter, schema *arrow.Schema, mem memory.Allocator, rows iter.Seq[*R]) error {
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	n := 0
	flush := func() error {
		rec := b.NewRecord()
		defer rec.Release()
		n = 0
		return w.Write(rec)
	}
	for row := range rows {
		for i := range t.columns {
			t.columns[i].write(b.Field(i), row)
		}
		if n++; n == rowsPerRecord {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if n > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return w.Close()
}

// encode gives the rows as one Arrow IPC stream.
func (t table[R]) encode(mem memory.Allocator, rows iter.Seq[*R]) ([]byte, error) {
	var buf bytes.Buffer
	schema := t.schema()
	if err := t.write(ipc.NewWriter(&buf, ipc.WithSchema(schema), ipc.WithAllocator(mem)), schema, mem, rows); err != nil {
		return nil, fmt.Errorf("encode %s: %w", t.name, err)
	}
	return buf.Bytes(), nil
}

// decode reads an Arrow IPC stream and hands every row to each.
//
// Arrow trusts the lengths and offsets of its input: it panics where they lead
// outside a buffer and allocates what they ask for. messages and a budgeted
// allocator bound what it may allocate, and every panic that is left is a
// broken promise of the bytes, so it becomes forager.ErrCorrupt here, at the
// one place where foreign bytes come in.
func (t table[R]) decode(mem memory.Allocator, msgs *messages, each func(*R) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode %s: %v: %w", t.name, p, forager.ErrCorrupt)
		}
	}()
	budget := &budget{Allocator: mem, left: msgs.budget()}
	r, err := ipc.NewReaderFromMessageReader(msgs, ipc.WithAllocator(budget))
	if err != nil {
		return t.failed(err)
	}
	defer r.Release()
	if err := t.check(r.Schema()); err != nil {
		return t.failed(err)
	}
	for r.Next() {
		rec := r.Record()
		read, err := bindAll(t.columns, rec.Schema().Fields(), rec.Column)
		if err != nil {
			return t.failed(err)
		}
		for i := range int(rec.NumRows()) {
			var row R
			if err := read(i, &row); err != nil {
				return t.failed(err)
			}
			if err := each(&row); err != nil {
				return t.failed(err)
			}
		}
	}
	if r.Err() != nil {
		return t.failed(r.Err())
	}
	return nil
}

// encodeRows and decodeRows are for schemas whose row is the thing itself.

func encodeRows[R any](mem memory.Allocator, t table[R], things []R, check func(*R) error) ([]byte, error) {
	for i := range things {
		if err := check(&things[i]); err != nil {
			return nil, fmt.Errorf("encode %s: %w", t.name, err)
		}
	}
	return t.encode(mem, pointers(things))
}

// pointers walks over things without copying them.
func pointers[R any](things []R) iter.Seq[*R] {
	return func(yield func(*R) bool) {
		for i := range things {
			if !yield(&things[i]) {
				return
			}
		}
	}
}

func decodeRows[R any](mem memory.Allocator, t table[R], msgs *messages, check func(*R) error) ([]R, error) {
	var things []R
	err := t.decode(mem, msgs, func(row *R) error {
		if err := check(row); err != nil {
			return err
		}
		things = append(things, *row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return things, nil
}

// check tells whether this reader understands the schema.
func (t table[R]) check(s *arrow.Schema) error {
	value := func(key string) string {
		v, _ := s.Metadata().GetValue(key)
		return v
	}
	name := value(schemaKey)
	if name != t.name {
		return fmt.Errorf("schema %q, want %q: %w", name, t.name, forager.ErrSchema)
	}
	major, _, _ := strings.Cut(value(versionKey), ".")
	v, err := strconv.Atoi(major)
	if err != nil || v < 1 || v > t.version {
		return forager.WithHint(
			fmt.Errorf("schema %s version %q, this reader knows up to %d: %w", name, value(versionKey), t.version, forager.ErrSchema),
			"upgrade this process")
	}
	return nil
}

// failed gives an error of decoding its sentinel: what is not an unknown schema
// is corrupt.
func (t table[R]) failed(err error) error {
	if errors.Is(err, forager.ErrSchema) || errors.Is(err, forager.ErrCorrupt) {
		return fmt.Errorf("decode %s: %w", t.name, err)
	}
	return fmt.Errorf("decode %s: %w: %w", t.name, forager.ErrCorrupt, err)
}

// budget is an allocator that panics when more is asked for than a decoder can
// need; decode turns the panic into forager.ErrCorrupt.
type budget struct {
	memory.Allocator
	left int
}

func (b *budget) charge(size int) {
	if b.left -= size; size < 0 || b.left < 0 {
		panic("lengths ask for more memory than the bytes can hold")
	}
}

func (b *budget) Allocate(size int) []byte {
	b.charge(size)
	return b.Allocator.Allocate(size)
}

func (b *budget) Reallocate(size int, old []byte) []byte {
	b.charge(size)
	return b.Allocator.Reallocate(size, old)
}
