package safetensors

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/forager-rl/forager/internal/wholefile"
)

// Tensor is one named array as it lies in a file.
type Tensor struct {
	Name  string
	DType string // F32, BF16, ...
	Shape []int  // empty for a scalar
	Data  []byte // little-endian, row-major; nil for the tensors of FromFloat32 and FromBFloat16

	floats []float32 // converted while they are written, when Data is nil
}

// Size is the length of the tensor's data in bytes.
func (t Tensor) Size() int64 {
	if t.Data == nil {
		return int64(len(t.floats)) * int64(dtypeSize(t.DType))
	}
	return int64(len(t.Data))
}

// FromFloat32 makes a tensor of dtype F32. Without a shape it is a vector. The
// data is not copied: it must not change until the tensor is written.
func FromFloat32(name string, data []float32, shape ...int) Tensor {
	return fromFloats(name, F32, data, shape)
}

// FromBFloat16 makes a tensor of dtype BF16: half the bytes of F32, each value
// rounded to the nearest of 8 significant bits. Otherwise as FromFloat32.
func FromBFloat16(name string, data []float32, shape ...int) Tensor {
	return fromFloats(name, BF16, data, shape)
}

func fromFloats(name, dtype string, data []float32, shape []int) Tensor {
	t := newTensor(name, dtype, nil, len(data), shape)
	t.floats = data
	return t
}

// FromUint64 makes a tensor of dtype U64. Without a shape it is a vector.
func FromUint64(name string, data []uint64, shape ...int) Tensor {
	out := make([]byte, 0, 8*len(data))
	for _, v := range data {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	return newTensor(name, U64, out, len(data), shape)
}

func newTensor(name, dtype string, data []byte, length int, shape []int) Tensor {
	if len(shape) == 0 {
		shape = []int{length}
	}
	return Tensor{Name: name, DType: dtype, Shape: slices.Clone(shape), Data: data}
}

// Write writes tensors and metadata. The bytes depend on the set of tensors
// only, not on their order: wide elements come first, so that every tensor is
// aligned, then names in alphabetical order. It fails before the first byte
// when names repeat or a shape does not fit its data.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	if err := write(w, tensors, metadata); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	return nil
}

func write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(dtypeSize(b.DType), dtypeSize(a.DType)), cmp.Compare(a.Name, b.Name))
	})
	head, err := encodeHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, t := range tensors {
		if err := t.write(w); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

func (t Tensor) write(w io.Writer) error {
	if t.Data != nil {
		_, err := w.Write(t.Data)
		return err
	}
	size := dtypeSize(t.DType)
	buffer := make([]byte, min(chunk, len(t.floats)*size))
	for left := t.floats; len(left) > 0; {
		n := min(len(buffer)/size, len(left))
		encodeFloats(buffer, left[:n], t.DType)
		if _, err := w.Write(buffer[:n*size]); err != nil {
			return err
		}
		left = left[n:]
	}
	return nil
}

// encodeHeader gives the length prefix and the JSON header, padded with spaces
// so that the data begins at a multiple of 8.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	type jsonEntry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	fields := make(map[string]any, len(tensors)+1)
	if len(metadata) > 0 {
		fields[metadataKey] = metadata
	}
	var at int64
	for _, t := range tensors {
		if _, taken := fields[t.Name]; taken || t.Name == metadataKey {
			return nil, fmt.Errorf("tensor %q: name is taken", t.Name)
		}
		size := dtypeSize(t.DType)
		if size == 0 {
			return nil, fmt.Errorf("tensor %q: unknown dtype %q", t.Name, t.DType)
		}
		need, err := byteLength(size, t.Shape)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if need != t.Size() {
			return nil, fmt.Errorf("tensor %q: %s of shape %v takes %d bytes, got %d", t.Name, t.DType, t.Shape, need, t.Size())
		}
		fields[t.Name] = jsonEntry{DType: t.DType, Shape: append([]int{}, t.Shape...), Offsets: [2]int64{at, at + need}}
		at += need
	}
	var body bytes.Buffer
	body.Write(make([]byte, 8))
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(fields); err != nil {
		return nil, err
	}
	body.Truncate(body.Len() - 1) // the encoder's newline
	for body.Len()%8 != 0 {
		body.WriteByte(' ')
	}
	out := body.Bytes()
	if len(out)-8 > maxHeader {
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed", len(out)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(out, uint64(len(out)-8))
	return out, nil
}

// WriteFile writes a file in one piece: readers see the old file or the whole
// new one, also after a crash or on a full disk.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) error {
	err := wholefile.Write(path, func(f *os.File) error {
		buffered := bufio.NewWriterSize(f, 1<<20)
		if err := write(buffered, tensors, metadata); err != nil {
			return err
		}
		return buffered.Flush()
	})
	if err != nil {
		return fmt.Errorf("write weights %s: %w", path, err)
	}
	return nil
}
