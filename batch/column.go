package batch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/forager-rl/forager"
)

// column is one field of a row type R: how it is named and typed in Arrow, how
// a row is appended to its builder and how row i is read back.
type column[R any] struct {
	name     string
	typ      arrow.DataType
	required bool // absent: forager.ErrSchema; otherwise absent reads as zero
	write    func(b array.Builder, row *R)
	bind     func(a arrow.Array) (reader[R], error)
}

// reader puts element i of a bound array into a row.
type reader[R any] func(i int, row *R) error

// must makes a column one that a batch cannot do without.
func must[R any](c column[R]) column[R] {
	c.required = true
	return c
}

type builder[V any] interface {
	array.Builder
	Append(V)
}

type values[V any] interface {
	arrow.Array
	Value(i int) V
}

// scalar is a column with one value per row, kept in the field that get points
// to and converted to and from the value type of Arrow.
func scalar[B builder[V], A values[V], V, T, R any](
	name string, typ arrow.DataType, get func(*R) *T, to func(T) V, from func(V) T,
) column[R] {
	return column[R]{
		name: name, typ: typ,
		write: func(b array.Builder, row *R) { b.(B).Append(to(*get(row))) },
		bind: func(a arrow.Array) (reader[R], error) {
			vals, ok := a.(A)
			if !ok {
				return nil, wrongType(name, a, typ)
			}
			return func(i int, row *R) error {
				if !vals.IsNull(i) {
					*get(row) = from(vals.Value(i))
				}
				return nil
			}, nil
		},
	}
}

func signed[T ~int | ~int64, R any](name string, get func(*R) *T) column[R] {
	return scalar[*array.Int64Builder, *array.Int64](name, arrow.PrimitiveTypes.Int64, get,
		func(v T) int64 { return int64(v) }, func(v int64) T { return T(v) })
}

func unsigned[T ~uint64, R any](name string, get func(*R) *T) column[R] {
	return scalar[*array.Uint64Builder, *array.Uint64](name, arrow.PrimitiveTypes.Uint64, get,
		func(v T) uint64 { return uint64(v) }, func(v uint64) T { return T(v) })
}

func position[R any](name string, get func(*R) *int32) column[R] {
	same := func(v int32) int32 { return v }
	return scalar[*array.Int32Builder, *array.Int32](name, arrow.PrimitiveTypes.Int32, get, same, same)
}

func float[R any](name string, get func(*R) *float64) column[R] {
	same := func(v float64) float64 { return v }
	return scalar[*array.Float64Builder, *array.Float64](name, arrow.PrimitiveTypes.Float64, get, same, same)
}

// optionalFloat is null where the pointer is nil.
func optionalFloat[R any](name string, get func(*R) **float64) column[R] {
	typ := arrow.PrimitiveTypes.Float64
	return column[R]{
		name: name, typ: typ,
		write: func(b array.Builder, row *R) {
			if v := *get(row); v != nil {
				b.(*array.Float64Builder).Append(*v)
			} else {
				b.AppendNull()
			}
		},
		bind: func(a arrow.Array) (reader[R], error) {
			vals, ok := a.(*array.Float64)
			if !ok {
				return nil, wrongType(name, a, typ)
			}
			return func(i int, row *R) error {
				if !vals.IsNull(i) {
					v := vals.Value(i)
					*get(row) = &v
				}
				return nil
			}, nil
		},
	}
}

// moment is a time in UTC, kept to the microsecond: the unit that NumPy, pandas
// and Parquet share.
func moment[R any](name string, get func(*R) *time.Time) column[R] {
	return scalar[*array.TimestampBuilder, *array.Timestamp](name, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, get,
		func(t time.Time) arrow.Timestamp { return arrow.Timestamp(t.UnixMicro()) },
		func(v arrow.Timestamp) time.Time { return time.UnixMicro(int64(v)).UTC() })
}

// duration is a span of time in nanoseconds, of which whole microseconds are kept as
// of a moment: Python's timedelta holds no more, and pyarrow refuses what it cannot give.
func duration[R any](name string, get func(*R) *time.Duration) column[R] {
	return scalar[*array.DurationBuilder, *array.Duration](name, arrow.FixedWidthTypes.Duration_ns, get,
		func(d time.Duration) arrow.Duration { return arrow.Duration(d.Truncate(time.Microsecond)) },
		func(v arrow.Duration) time.Duration { return time.Duration(v) })
}

// text copies the strings that it reads, so that a short one does not keep the
// buffer of the whole batch alive. What is not UTF-8 becomes U+FFFD: Arrow promises
// UTF-8 to all readers, and nobody promises it to us.
func text[S ~string, R any](name string, get func(*R) *S) column[R] {
	c := scalar[*array.StringBuilder, *array.String](name, arrow.BinaryTypes.String, get,
		func(s S) string { return valid(string(s)) }, func(v string) S { return S(strings.Clone(v)) })
	plain := c.bind
	c.bind = func(a arrow.Array) (reader[R], error) {
		read, err := plain(a)
		if err != nil {
			return nil, err
		}
		room := textBytes(a)
		return func(i int, row *R) error {
			if err := read(i, row); err != nil {
				return err
			}
			err := spend(&room, len(*get(row)), name)
			*get(row) = S(valid(string(*get(row))))
			return err
		}, nil
	}
	return c
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// nullable turns a column into one that is null where absent says so.
func nullable[R any](c column[R], absent func(*R) bool) column[R] {
	write := c.write
	c.write = func(b array.Builder, row *R) {
		if absent(row) {
			b.AppendNull()
			return
		}
		write(b, row)
	}
	return c
}

// slicer copies elements [beg, end) out of the bound child of a list.
type slicer[T any] func(beg, end int) ([]T, error)

// list is a column with a list of values per row. put appends the values of one
// row to the child builder; bindChild gives access to the child array.
func list[T, R any](
	name string, elem arrow.DataType, get func(*R) *[]T,
	put func(array.Builder, []T), bindChild func(arrow.Array) (slicer[T], error),
) column[R] {
	typ := arrow.ListOf(elem)
	return column[R]{
		name: name, typ: typ,
		write: func(b array.Builder, row *R) {
			lists := b.(*array.ListBuilder)
			lists.Append(true)
			put(lists.ValueBuilder(), *get(row))
		},
		bind: func(a arrow.Array) (reader[R], error) {
			lists, ok := a.(*array.List)
			if !ok {
				return nil, wrongType(name, a, typ)
			}
			size := lists.ListValues().Len()
			take, err := bindChild(lists.ListValues())
			if err != nil {
				return nil, fmt.Errorf("column %s: %w", name, err)
			}
			room := size
			return func(i int, row *R) error {
				if lists.IsNull(i) {
					return nil
				}
				beg, end := lists.ValueOffsets(i)
				if beg < 0 || end < beg || end > int64(size) {
					return fmt.Errorf("column %s: list [%d,%d) of %d elements", name, beg, end, size)
				}
				if beg == end {
					return nil
				}
				if err := spend(&room, int(end-beg), name); err != nil {
					return err
				}
				vals, err := take(int(beg), int(end))
				*get(row) = vals
				return err
			}, nil
		},
	}
}

// primitives is a list column of fixed-width values, copied in bulk.
func primitives[B array.Builder, A arrow.Array, T, R any](
	name string, elem arrow.DataType, get func(*R) *[]T, put func(B, []T, []bool), all func(A) []T,
) column[R] {
	return list(name, elem, get,
		func(b array.Builder, v []T) { put(b.(B), v, nil) },
		func(a arrow.Array) (slicer[T], error) {
			child, ok := a.(A)
			if !ok {
				return nil, wrongType("item", a, elem)
			}
			vals := all(child)
			return func(beg, end int) ([]T, error) { return slices.Clone(vals[beg:end]), nil }, nil
		})
}

func positions[R any](name string, get func(*R) *[]int32) column[R] {
	return primitives(name, arrow.PrimitiveTypes.Int32, get, (*array.Int32Builder).AppendValues, (*array.Int32).Int32Values)
}

func float32s[R any](name string, get func(*R) *[]float32) column[R] {
	return primitives(name, arrow.PrimitiveTypes.Float32, get, (*array.Float32Builder).AppendValues, (*array.Float32).Float32Values)
}

func float64s[R any](name string, get func(*R) *[]float64) column[R] {
	return primitives(name, arrow.PrimitiveTypes.Float64, get, (*array.Float64Builder).AppendValues, (*array.Float64).Float64Values)
}

func bools[R any](name string, get func(*R) *[]bool) column[R] {
	return list(name, arrow.FixedWidthTypes.Boolean, get,
		func(b array.Builder, v []bool) { b.(*array.BooleanBuilder).AppendValues(v, nil) },
		func(a arrow.Array) (slicer[bool], error) {
			bits, ok := a.(*array.Boolean)
			if !ok {
				return nil, wrongType("item", a, arrow.FixedWidthTypes.Boolean)
			}
			return func(beg, end int) ([]bool, error) {
				out := make([]bool, end-beg)
				for i := range out {
					out[i] = bits.Value(beg + i)
				}
				return out, nil
			}, nil
		})
}

// texts and structs read their elements one by one, as columns of their own.

func texts[R any](name string, get func(*R) *[]string) column[R] {
	elem := text("item", func(s *string) *string { return s })
	return list(name, elem.typ, get,
		func(b array.Builder, v []string) {
			for i := range v {
				b.(*array.StringBuilder).Append(valid(v[i]))
			}
		},
		func(a arrow.Array) (slicer[string], error) {
			read, err := elem.bind(a)
			return each(read), err
		})
}

// structs is a column with a list of structs per row. Fields of the struct
// follow the rule of columns: more may be added, optional ones may be absent.
func structs[E, R any](name string, fields []column[E], get func(*R) *[]E) column[R] {
	elem := arrow.StructOf(arrowFields(fields)...)
	return list(name, elem, get,
		func(b array.Builder, elems []E) {
			rows := b.(*array.StructBuilder)
			for i := range elems {
				rows.Append(true)
				for f := range fields {
					fields[f].write(rows.FieldBuilder(f), &elems[i])
				}
			}
		},
		func(a arrow.Array) (slicer[E], error) {
			rows, ok := a.(*array.Struct)
			if !ok {
				return nil, wrongType("item", a, elem)
			}
			read, err := bindAll(fields, rows.DataType().(*arrow.StructType).Fields(), rows.Field)
			return each(read), err
		})
}

// each makes a slicer of a reader of single elements.
func each[E any](read reader[E]) slicer[E] {
	return func(beg, end int) ([]E, error) {
		out := make([]E, end-beg)
		for i := range out {
			if err := read(beg+i, &out[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
}

// bindAll finds the columns by name among the fields of a record or struct and
// gives one reader for all of them, in the order of columns.
func bindAll[R any](columns []column[R], fields []arrow.Field, at func(int) arrow.Array) (reader[R], error) {
	index := make(map[string]int, len(fields))
	for i, f := range fields {
		index[f.Name] = i
	}
	readers := make([]reader[R], 0, len(columns))
	for _, c := range columns {
		i, ok := index[c.name]
		if !ok {
			if c.required {
				return nil, fmt.Errorf("no column %s: %w", c.name, forager.ErrSchema)
			}
			continue
		}
		read, err := c.bind(at(i))
		if err != nil {
			return nil, err
		}
		readers = append(readers, read)
	}
	return func(i int, row *R) error {
		for _, read := range readers {
			if err := read(i, row); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func arrowFields[R any](columns []column[R]) []arrow.Field {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.name, Type: c.typ, Nullable: true}
	}
	return fields
}

// textBytes is the number of bytes that all strings of an array share.
func textBytes(a arrow.Array) int {
	if buffers := a.Data().Buffers(); len(buffers) == 3 && buffers[2] != nil {
		return buffers[2].Len()
	}
	return 0
}

// spend takes n from what a buffer can hold. Offsets that overlap could
// otherwise turn a small batch into a huge one.
func spend(room *int, n int, name string) error {
	if *room -= n; *room < 0 {
		return fmt.Errorf("column %s: values overlap", name)
	}
	return nil
}

func wrongType(name string, a arrow.Array, want arrow.DataType) error {
	return fmt.Errorf("column %s is %s, want %s: %w", name, a.DataType(), want, forager.ErrSchema)
}
