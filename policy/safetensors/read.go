package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/forager-rl/forager"
)

// chunk is the number of bytes that are converted at a time.
const chunk = 1 << 16

// File is an open safetensors file. Its methods are safe for concurrent use.
type File struct {
	name   string // path, for errors
	reader io.ReaderAt
	closer io.Closer // nil when the caller owns the reader
	data   int64     // offset of the first tensor byte
	header header
}

// Open opens a file and checks its header. Close it after use.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open weights: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open weights: %w", err), f.Close())
	}
	file, err := parse(path, f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file.closer = f
	return file, nil
}

// Parse reads a file of size bytes from r, which must stay readable while the
// File is used and stays the caller's to close.
func Parse(r io.ReaderAt, size int64) (*File, error) {
	return parse("safetensors data", r, size)
}

func parse(name string, r io.ReaderAt, size int64) (*File, error) {
	fail := func(err error) (*File, error) { return nil, fmt.Errorf("read weights %s: %w", name, err) }
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return fail(corrupt("truncated: %d bytes", size))
	}
	if err := readFull(r, prefix[:], 0); err != nil {
		return fail(err)
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return fail(corrupt("header of %d bytes, at most %d are allowed", length, maxHeader))
	}
	data := int64(len(prefix)) + int64(length)
	if data > size {
		return fail(corrupt("truncated: header of %d bytes in a file of %d", length, size))
	}
	raw := make([]byte, length)
	if err := readFull(r, raw, int64(len(prefix))); err != nil {
		return fail(err)
	}
	h, err := parseHeader(raw, size-data)
	if err != nil {
		return fail(err)
	}
	return &File{name: name, reader: r, data: data, header: h}, nil
}

// Names lists the tensors in alphabetical order.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.header.tensors)) }

// Metadata is a copy of the file's free-form strings, nil when it has none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.header.metadata) }

// Shape is a copy of a tensor's dimensions; false when the tensor is not there.
// A scalar has no dimensions.
func (f *File) Shape(name string) ([]int, bool) {
	e, ok := f.header.tensors[name]
	return slices.Clone(e.shape), ok
}

// DType is a tensor's element type, such as "BF16"; empty when the tensor is
// not there.
func (f *File) DType(name string) string { return f.header.tensors[name].dtype }

// Bytes reads a tensor as it is stored: little-endian, row-major.
func (f *File) Bytes(name string) ([]byte, error) {
	e, err := f.entry(name, nil)
	if err != nil {
		return nil, err
	}
	out := make([]byte, e.end-e.begin)
	if err := readFull(f.reader, out, f.data+e.begin); err != nil {
		return nil, f.fail(name, err)
	}
	return out, nil
}

// Float32 reads a tensor of dtype F32, F16 or BF16 in row-major order. A shape,
// when given, must be the tensor's.
func (f *File) Float32(name string, shape ...int) ([]float32, error) {
	e, err := f.entry(name, shape, F32, F16, BF16)
	if err != nil {
		return nil, err
	}
	out := make([]float32, (e.end-e.begin)/int64(dtypeSize(e.dtype)))
	if err := f.readFloats(out, name, e); err != nil {
		return nil, err
	}
	return out, nil
}

// ReadFloat32 is Float32 into memory of the caller, whose length must be the
// tensor's.
func (f *File) ReadFloat32(out []float32, name string, shape ...int) error {
	e, err := f.entry(name, shape, F32, F16, BF16)
	if err != nil {
		return err
	}
	if n := (e.end - e.begin) / int64(dtypeSize(e.dtype)); n != int64(len(out)) {
		return f.fail(name, fmt.Errorf("%d elements, want %d: %w", n, len(out), forager.ErrArchitecture))
	}
	return f.readFloats(out, name, e)
}

// readFloats converts block by block, so that a tensor is never in memory twice.
func (f *File) readFloats(out []float32, name string, e entry) error {
	size := int64(dtypeSize(e.dtype))
	buffer := make([]byte, min(chunk, e.end-e.begin))
	for left := out; len(left) > 0; {
		n := min(int64(len(buffer))/size, int64(len(left)))
		at := f.data + e.end - int64(len(left))*size
		if err := readFull(f.reader, buffer[:n*size], at); err != nil {
			return f.fail(name, err)
		}
		decodeFloats(left[:n], buffer, e.dtype)
		left = left[n:]
	}
	return nil
}

// Uint64 reads a tensor of dtype U64. A shape, when given, must be the tensor's.
func (f *File) Uint64(name string, shape ...int) ([]uint64, error) {
	e, err := f.entry(name, shape, U64)
	if err != nil {
		return nil, err
	}
	data := make([]byte, e.end-e.begin)
	if err := readFull(f.reader, data, f.data+e.begin); err != nil {
		return nil, f.fail(name, err)
	}
	out := make([]uint64, len(data)/8)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return out, nil
}

// Close closes the file. It is safe to call twice.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	if err := f.closer.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close weights: %w", err)
	}
	return nil
}

// entry finds a tensor and checks it against a shape and the dtypes that the
// caller can use; empty lists check nothing.
func (f *File) entry(name string, shape []int, dtypes ...string) (entry, error) {
	e, ok := f.header.tensors[name]
	switch {
	case !ok:
		return e, f.fail(name, forager.ErrNotFound)
	case len(dtypes) > 0 && !slices.Contains(dtypes, e.dtype):
		return e, f.fail(name, fmt.Errorf("dtype %s, want %s: %w", e.dtype, strings.Join(dtypes, " or "), forager.ErrArchitecture))
	case len(shape) > 0 && !slices.Equal(shape, e.shape):
		return e, f.fail(name, fmt.Errorf("shape %v, want %v: %w", e.shape, shape, forager.ErrArchitecture))
	}
	return e, nil
}

func (f *File) fail(name string, err error) error {
	return fmt.Errorf("read weights %s: tensor %q: %w", f.name, name, err)
}

// readFull fills p from offset at. Fewer bytes than promised are corruption,
// since sizes were checked before.
func readFull(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return corrupt("truncated: %d of %d bytes at %d", n, len(p), at)
	}
	return err
}
