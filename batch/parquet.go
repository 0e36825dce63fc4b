package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/forager-rl/forager"
)

// ReadParquet calls row for every row of a Parquet file, counted from 0, with
// its columns by name: data sets of tasks and corpora come so, with any schema.
// Values are nil, bool, int64, uint64, float64, string, []byte, time.Time, []any
// (lists), map[string]any (structs) or, for maps, []any of structs with key and
// value. What row returns as an error ends the reading and is returned as it is.
// A file that is not Parquet, or is damaged, wraps forager.ErrCorrupt.
func ReadParquet(path string, row func(n int, row map[string]any) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read parquet: %w", err)
	}
	defer f.Close() // only read from

	records, err := openParquet(f)
	if err != nil {
		return fmt.Errorf("read parquet %s: %w: %w", path, forager.ErrCorrupt, err)
	}
	defer records.Release()
	n := 0
	for {
		rows, err := nextRows(records)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read parquet %s, after row %d: %w: %w", path, n, forager.ErrCorrupt, err)
		}
		for _, r := range rows {
			if err := row(n, r); err != nil {
				return err
			}
			n++
		}
	}
}

// rowsPerRead is small, because a row may hold a whole document.
const rowsPerRead = 256

// openParquet and nextRows turn the panics of the Parquet reader into errors, as
// decode does; the callback of the caller stays outside. The reader of structs
// works in goroutines of its own, whose panics nobody could catch, so tryParquet
// reads every column once before.
func openParquet(f *os.File) (records pqarrow.RecordReader, err error) {
	defer recovered(&err)
	r, err := file.NewParquetReader(f)
	if err != nil {
		return nil, err
	}
	// Writers may leave an Arrow schema in the metadata as well. It would be
	// believed without a check (see checkMessage), and plain values do not need it.
	r.MetaData().FileMetaData.KeyValueMetadata = nil
	if err := tryParquet(r); err != nil {
		return nil, err
	}
	columns, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: rowsPerRead}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	return columns.GetRecordReader(context.Background(), nil, nil)
}

// tryParquet decodes all that the file holds, column by column, in this
// goroutine.
func tryParquet(r *file.Reader) error {
	for g := range r.NumRowGroups() {
		for c := range r.MetaData().Schema.NumColumns() {
			column, err := r.RowGroup(g).Column(c)
			if err != nil {
				return err
			}
			chunk, err := r.MetaData().RowGroup(g).ColumnChunk(c)
			if err != nil {
				return err
			}
			n := chunk.NumValues()
			switch column := column.(type) {
			case *file.BooleanColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.Int32ColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.Int64ColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.Int96ColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.Float32ColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.Float64ColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.ByteArrayColumnChunkReader:
				err = drain(n, column.ReadBatch)
			case *file.FixedLenByteArrayColumnChunkReader:
				err = drain(n, column.ReadBatch)
			}
			if err != nil {
				return fmt.Errorf("row group %d, column %s: %w", g, r.MetaData().Schema.Column(c).Path(), err)
			}
		}
	}
	return nil
}

// drain reads n values, nulls included, and no more: a damaged page may claim
// billions.
func drain[T any](n int64, read func(n int64, values []T, definition, repetition []int16) (int64, int, error)) error {
	values, definition, repetition := make([]T, rowsPerRead), make([]int16, rowsPerRead), make([]int16, rowsPerRead)
	for n > 0 {
		got, _, err := read(rowsPerRead, values, definition, repetition)
		if err != nil {
			return err
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= got
	}
	if n < 0 {
		return errors.New("more values than announced")
	}
	return nil
}

func nextRows(records pqarrow.RecordReader) (rows []map[string]any, err error) {
	defer recovered(&err)
	if !records.Next() {
		if err := records.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	rec := records.Record()
	rows = make([]map[string]any, rec.NumRows())
	for i := range rows {
		rows[i] = make(map[string]any, rec.NumCols())
		for c, field := range rec.Schema().Fields() {
			if rows[i][field.Name], err = value(rec.Column(c), i); err != nil {
				return nil, fmt.Errorf("column %s: %w", field.Name, err)
			}
		}
	}
	return rows, nil
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%v", p)
	}
}

// value gives element i of an array as a plain Go value.
func value(a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i), nil
	case *array.Int8:
		return int64(a.Value(i)), nil
	case *array.Int16:
		return int64(a.Value(i)), nil
	case *array.Int32:
		return int64(a.Value(i)), nil
	case *array.Int64:
		return a.Value(i), nil
	case *array.Uint8:
		return uint64(a.Value(i)), nil
	case *array.Uint16:
		return uint64(a.Value(i)), nil
	case *array.Uint32:
		return uint64(a.Value(i)), nil
	case *array.Uint64:
		return a.Value(i), nil
	case *array.Float16:
		return float64(a.Value(i).Float32()), nil
	case *array.Float32:
		return float64(a.Value(i)), nil
	case *array.Float64:
		return a.Value(i), nil
	case *array.String:
		return strings.Clone(a.Value(i)), nil
	case *array.LargeString:
		return strings.Clone(a.Value(i)), nil
	case *array.Binary:
		return append([]byte{}, a.Value(i)...), nil
	case *array.LargeBinary:
		return append([]byte{}, a.Value(i)...), nil
	case *array.FixedSizeBinary:
		return append([]byte{}, a.Value(i)...), nil
	case *array.Timestamp:
		toTime, err := a.DataType().(*arrow.TimestampType).GetToTimeFunc()
		if err != nil {
			return nil, err
		}
		return toTime(a.Value(i)), nil
	case *array.Date32:
		return a.Value(i).ToTime(), nil
	case *array.Date64:
		return a.Value(i).ToTime(), nil
	case *array.Dictionary:
		return value(a.Dictionary(), a.GetValueIndex(i))
	case array.ListLike: // lists of all kinds, and maps as lists of key and value
		beg, end := a.ValueOffsets(i)
		elems := make([]any, 0, end-beg)
		for j := beg; j < end; j++ {
			elem, err := value(a.ListValues(), int(j))
			if err != nil {
				return nil, err
			}
			elems = append(elems, elem)
		}
		return elems, nil
	case *array.Struct:
		fields := make(map[string]any, a.NumField())
		for f, field := range a.DataType().(*arrow.StructType).Fields() {
			v, err := value(a.Field(f), i)
			if err != nil {
				return nil, err
			}
			fields[field.Name] = v
		}
		return fields, nil
	default:
		return nil, fmt.Errorf("values of type %s are not read", a.DataType())
	}
}
