package gguf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/forager-rl/forager"
)

// File is an open GGUF file. Its methods are safe for concurrent use.
type File struct {
	name     string // path, for errors
	reader   io.ReaderAt
	closer   io.Closer // of reader
	metadata map[string]any
	tensors  map[string]entry
}

// Open opens a file and checks its header. Close it after use.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open model: %w", err), f.Close())
	}
	file, err := parse(path, f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	file.closer = f
	return file, nil
}

func parse(name string, r io.ReaderAt, size int64) (*File, error) {
	metadata, tensors, err := parseHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("read model %s: %w", name, err)
	}
	return &File{name: name, reader: r, metadata: metadata, tensors: tensors}, nil
}

// Close closes the file. It is safe to call twice.
func (f *File) Close() error {
	if err := f.closer.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close model: %w", err)
	}
	return nil
}

// Names lists the tensors in alphabetical order.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Shape is a copy of a tensor's dimensions, the outermost first, the other way
// round than in the file; false when the tensor is not there.
func (f *File) Shape(name string) ([]int, bool) {
	e, ok := f.tensors[name]
	return slices.Clone(e.shape), ok
}

// Encoding is how a tensor is stored, such as "F16" or "Q4_K"; empty when the
// tensor is not there.
func (f *File) Encoding(name string) string { return f.tensors[name].encoding.name }

// ReadFloat32 reads a tensor, row-major, into out, whose length must be the
// tensor's. A shape, when given, must be the tensor's.
func (f *File) ReadFloat32(out []float32, name string, shape ...int) error {
	e, ok := f.tensors[name]
	switch {
	case !ok:
		return f.fail(name, forager.ErrNotFound)
	case len(shape) > 0 && !slices.Equal(shape, e.shape):
		return f.fail(name, fmt.Errorf("shape %v, want %v: %w", e.shape, shape, forager.ErrArchitecture))
	case e.count != int64(len(out)):
		return f.fail(name, fmt.Errorf("%d elements, want %d: %w", e.count, len(out), forager.ErrArchitecture))
	}
	blocks := max(1, (1<<16)/e.encoding.bytes) // read at a time
	buffer := make([]byte, min(int64(blocks*e.encoding.bytes), e.end-e.begin))
	at := e.begin
	for left := out; len(left) > 0; {
		n := min(blocks*e.encoding.block, len(left))
		part := buffer[:n/e.encoding.block*e.encoding.bytes]
		if read, err := f.reader.ReadAt(part, at); read < len(part) {
			if errors.Is(err, io.EOF) {
				err = corrupt("truncated: %d of %d bytes at %d", read, len(part), at)
			}
			return f.fail(name, err)
		}
		e.encoding.decode(left[:n], part)
		at += int64(len(part))
		left = left[n:]
	}
	return nil
}

func (f *File) fail(name string, err error) error {
	return fmt.Errorf("read model %s: tensor %q: %w", f.name, name, err)
}
