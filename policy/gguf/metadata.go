package gguf

import (
	"fmt"
	"math"

	"github.com/forager-rl/forager"
)

// The types of metadata values, by their number in the file.
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// typeSize is the least number of bytes of a value, 0 for an unknown type.
func typeSize(kind uint32) int64 {
	switch kind {
	case typeUint8, typeInt8, typeBool:
		return 1
	case typeUint16, typeInt16:
		return 2
	case typeUint32, typeInt32, typeFloat32:
		return 4
	case typeUint64, typeInt64, typeFloat64, typeString:
		return 8
	}
	return 0
}

func (d *decoder) metadata(n int) (map[string]any, error) {
	pairs := map[string]any{}
	for range n {
		key, err := d.string(maxName)
		if err != nil {
			return nil, fmt.Errorf("metadata pair %d: %w", len(pairs), err)
		}
		if _, taken := pairs[key]; taken {
			return nil, corrupt("metadata %q occurs twice", key)
		}
		if pairs[key], err = d.value(); err != nil {
			return nil, fmt.Errorf("metadata %q: %w", key, err)
		}
	}
	return pairs, nil
}

// value reads a type and a value: int64, float64, bool, string, or a slice of
// one of them, of int32 for narrow integers and float32 for narrow floats.
func (d *decoder) value() (any, error) {
	kind, err := d.uint32()
	if err != nil {
		return nil, err
	}
	if kind != typeArray {
		return d.scalar(kind)
	}
	if kind, err = d.uint32(); err != nil {
		return nil, err
	}
	size := typeSize(kind)
	if size == 0 {
		return nil, fmt.Errorf("array of type %d: %w", kind, forager.ErrSchema)
	}
	n, err := d.count("array elements", size)
	if err != nil {
		return nil, err
	}
	switch kind {
	case typeString:
		return array[string](d, kind, n)
	case typeBool:
		return array[bool](d, kind, n)
	case typeFloat32:
		return narrow[float64, float32](d, kind, n)
	case typeFloat64:
		return array[float64](d, kind, n)
	case typeUint32, typeUint64, typeInt64:
		return array[int64](d, kind, n)
	}
	return narrow[int64, int32](d, kind, n)
}

func array[T any](d *decoder, kind uint32, n int) ([]T, error) {
	list := make([]T, 0, n)
	for range n {
		v, err := d.scalar(kind)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", len(list), err)
		}
		list = append(list, v.(T))
	}
	return list, nil
}

// narrow is array for values that fit a smaller type.
func narrow[T int64 | float64, S int32 | float32](d *decoder, kind uint32, n int) ([]S, error) {
	list := make([]S, 0, n)
	for range n {
		v, err := d.scalar(kind)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", len(list), err)
		}
		list = append(list, S(v.(T)))
	}
	return list, nil
}

func (d *decoder) scalar(kind uint32) (any, error) {
	if kind == typeString {
		return d.string(maxHeader)
	}
	size := typeSize(kind)
	if size == 0 {
		return nil, fmt.Errorf("value of type %d: %w", kind, forager.ErrSchema)
	}
	bits, err := d.uint(size)
	if err != nil {
		return nil, err
	}
	switch kind {
	case typeInt8:
		return int64(int8(bits)), nil
	case typeInt16:
		return int64(int16(bits)), nil
	case typeInt32:
		return int64(int32(bits)), nil
	case typeFloat32:
		return float64(math.Float32frombits(uint32(bits))), nil
	case typeFloat64:
		return math.Float64frombits(bits), nil
	case typeBool:
		if bits > 1 {
			return nil, corrupt("a bool is %d", bits)
		}
		return bits == 1, nil
	case typeUint64:
		if bits > math.MaxInt64 {
			return nil, corrupt("%d overflows", bits)
		}
	}
	return int64(bits), nil
}

// Text is a string of the metadata. A missing one fails with
// [forager.ErrNotFound].
func (f *File) Text(key string) (string, error) { return get[string](f, key) }

// Int is an integer of the metadata, of any width. A missing one fails with
// [forager.ErrNotFound].
func (f *File) Int(key string) (int64, error) { return get[int64](f, key) }

// Float is a number of the metadata, of either width. A missing one fails with
// [forager.ErrNotFound].
func (f *File) Float(key string) (float64, error) { return get[float64](f, key) }

// Has reports whether the metadata has a key.
func (f *File) Has(key string) bool {
	_, ok := f.metadata[key]
	return ok
}

func get[T any](f *File, key string) (T, error) {
	var none T
	value, ok := f.metadata[key]
	if !ok {
		return none, f.failKey(key, forager.ErrNotFound)
	}
	typed, ok := value.(T)
	if !ok {
		return none, f.failKey(key, fmt.Errorf("%T where %T should be: %w", value, none, forager.ErrSchema))
	}
	return typed, nil
}

func (f *File) failKey(key string, err error) error {
	return fmt.Errorf("read model %s: metadata %q: %w", f.name, key, err)
}
