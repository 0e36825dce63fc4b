package gguf

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/forager-rl/forager"
)

const (
	// maxHeader bounds the metadata and the directory, in bytes: the largest
	// vocabularies take some 20 MB.
	maxHeader = 256 << 20
	// maxName is the longest name of a tensor or key, in bytes.
	maxName          = 1 << 16
	maxDimensions    = 4
	alignmentKey     = "general.alignment"
	defaultAlignment = 32
	maxAlignment     = 1 << 20
)

// entry is one tensor of the directory.
type entry struct {
	encoding   encoding
	shape      []int // outermost first, as in PyTorch
	count      int64 // of numbers
	begin, end int64 // in bytes from the beginning of the file
}

// decoder reads the header, which ends at maxHeader or with the file.
type decoder struct {
	r    *bufio.Reader
	at   int64
	left int64 // bytes that may still be read
	word [8]byte
}

// parseHeader reads the header of a file of size bytes.
func parseHeader(r io.ReaderAt, size int64) (metadata map[string]any, tensors map[string]entry, err error) {
	limit := min(size, maxHeader)
	d := &decoder{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, limit), 1<<16), left: limit}
	magic := make([]byte, 4)
	if err := d.read(magic); err != nil {
		return nil, nil, err
	}
	if string(magic) != "GGUF" {
		return nil, nil, corrupt("not a GGUF file: it begins with %q", magic)
	}
	version, err := d.uint32()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case version == 2 || version == 3:
	case version != 0 && version&0xffff == 0:
		return nil, nil, fmt.Errorf("GGUF in big-endian byte order: %w", forager.ErrSchema)
	default:
		return nil, nil, fmt.Errorf("GGUF version %d: %w: versions 2 and 3 are read", version, forager.ErrSchema)
	}
	tensorCount, err := d.count("tensors", 8+4+8+4+8)
	if err != nil {
		return nil, nil, err
	}
	pairCount, err := d.count("metadata pairs", 8+4+1)
	if err != nil {
		return nil, nil, err
	}
	if metadata, err = d.metadata(pairCount); err != nil {
		return nil, nil, err
	}
	if tensors, err = d.directory(tensorCount); err != nil {
		return nil, nil, err
	}
	alignment := int64(defaultAlignment)
	if value, ok := metadata[alignmentKey]; ok {
		n, ok := value.(int64)
		if !ok || n < 1 || n > maxAlignment || n&(n-1) != 0 {
			return nil, nil, corrupt("%s is %v, want a power of two", alignmentKey, value)
		}
		alignment = n
	}
	data := (d.at + alignment - 1) / alignment * alignment
	return metadata, tensors, layOut(tensors, data, alignment, size)
}

// directory reads the tensors' names, shapes, encodings and offsets; begin and
// end are those in the data.
func (d *decoder) directory(n int) (map[string]entry, error) {
	tensors := map[string]entry{}
	for range n {
		name, err := d.string(maxName)
		if err != nil {
			return nil, fmt.Errorf("tensor %d: %w", len(tensors), err)
		}
		e, err := d.entry()
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		if _, taken := tensors[name]; taken {
			return nil, corrupt("tensor %q occurs twice", name)
		}
		tensors[name] = e
	}
	return tensors, nil
}

func (d *decoder) entry() (entry, error) {
	dimensions, err := d.uint32()
	if err != nil {
		return entry{}, err
	}
	if dimensions < 1 || dimensions > maxDimensions {
		return entry{}, corrupt("%d dimensions, want 1 to %d", dimensions, maxDimensions)
	}
	e := entry{count: 1, shape: make([]int, dimensions)}
	for i := range e.shape {
		length, err := d.uint64()
		if err != nil {
			return entry{}, err
		}
		if length < 1 || length > uint64(math.MaxInt64/e.count) {
			return entry{}, corrupt("dimension %d is %d", i, length)
		}
		e.count *= int64(length)
		e.shape[len(e.shape)-1-i] = int(length) // ggml names the innermost dimension first
	}
	kind, err := d.uint32()
	if err != nil {
		return entry{}, err
	}
	offset, err := d.uint64()
	if err != nil {
		return entry{}, err
	}
	var known bool
	if e.encoding, known = encodings[kind]; !known {
		return entry{}, forager.WithHint(fmt.Errorf("encoding %d of ggml: %w", kind, forager.ErrSchema),
			"take a file with F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K tensors")
	}
	inner := e.shape[len(e.shape)-1]
	if inner%e.encoding.block != 0 {
		return entry{}, corrupt("rows of %d numbers are not whole blocks of %s", inner, e.encoding.name)
	}
	blocks := e.count / int64(e.encoding.block)
	if blocks > math.MaxInt64/int64(e.encoding.bytes) || offset > math.MaxInt64 {
		return entry{}, corrupt("shape %v at offset %d overflows", e.shape, offset)
	}
	e.begin, e.end = int64(offset), blocks*int64(e.encoding.bytes)
	return e, nil
}

// layOut turns offsets in the data into positions in the file and checks that
// the tensors are aligned, lie within the file, and do not overlap. On entry
// begin is the offset and end the length.
func layOut(tensors map[string]entry, data, alignment, size int64) error {
	names := make([]string, 0, len(tensors))
	for name, e := range tensors {
		names = append(names, name)
		switch {
		case e.begin%alignment != 0:
			return corrupt("tensor %q: offset %d is not a multiple of %d", name, e.begin, alignment)
		case data > size || e.begin > size-data || e.end > size-data-e.begin:
			return corrupt("tensor %q: %d bytes at offset %d of the data do not fit into a file of %d bytes: truncated or out of range", name, e.end, e.begin, size)
		}
		e.begin += data
		e.end += e.begin
		tensors[name] = e
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(tensors[a].begin, tensors[b].begin) })
	for i, name := range names[min(1, len(names)):] {
		if before := names[i]; tensors[name].begin < tensors[before].end {
			return corrupt("tensor %q: overlaps tensor %q", name, before)
		}
	}
	return nil
}

// count reads the number of things that take at least size bytes each.
func (d *decoder) count(what string, size int64) (int, error) {
	n, err := d.uint64()
	if err != nil {
		return 0, err
	}
	if n > uint64(d.left/size) {
		return 0, corrupt("%d %s cannot be in the %d bytes that are left of the header", n, what, d.left)
	}
	return int(n), nil
}

// read fills p.
func (d *decoder) read(p []byte) error {
	if int64(len(p)) > d.left {
		return corrupt("truncated, or a header of more than %d bytes: %d bytes at %d", maxHeader, len(p), d.at)
	}
	n, err := io.ReadFull(d.r, p)
	d.at += int64(n)
	d.left -= int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("truncated: %d of %d bytes at %d", n, len(p), d.at-int64(n))
	}
	return err
}

// uint reads an integer of up to 8 bytes.
func (d *decoder) uint(size int64) (uint64, error) {
	clear(d.word[:])
	err := d.read(d.word[:size])
	return binary.LittleEndian.Uint64(d.word[:]), err
}

func (d *decoder) uint32() (uint32, error) {
	v, err := d.uint(4)
	return uint32(v), err
}

func (d *decoder) uint64() (uint64, error) { return d.uint(8) }

func (d *decoder) string(most int64) (string, error) {
	n, err := d.count("bytes", 1)
	if err != nil {
		return "", err
	}
	if int64(n) > most {
		return "", corrupt("string of %d bytes, at most %d are allowed", n, most)
	}
	b := make([]byte, n)
	err = d.read(b)
	return string(b), err
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, forager.ErrCorrupt)...)
}
