package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/forager-rl/forager"
)

const (
	// maxHeader is the largest header in bytes, as in the reference
	// implementation.
	maxHeader   = 100_000_000
	metadataKey = "__metadata__"
)

// entry is one tensor of a header. Its range is in bytes from the end of the
// header.
type entry struct {
	dtype      string
	shape      []int
	begin, end int64
}

type header struct {
	tensors  map[string]entry
	metadata map[string]string
}

// parseHeader checks a header against dataSize, the number of bytes after it.
func parseHeader(raw []byte, dataSize int64) (header, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return header{}, corrupt("the header is not a JSON object")
	}
	h := header{tensors: map[string]entry{}}
	dec := json.NewDecoder(bytes.NewReader(raw))
	// encoding/json keeps the last of two equal keys, so the objects are walked
	// by token: which tensor a name means must not depend on the reader.
	err := eachField(dec, func(name string) error {
		if name == metadataKey {
			return h.readMetadata(dec)
		}
		e, err := readEntry(dec)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		h.tensors[name] = e
		return nil
	})
	if err != nil {
		return header{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return header{}, corrupt("bytes after the header's JSON object")
	}
	return h, h.checkLayout(dataSize)
}

func (h *header) readMetadata(dec *json.Decoder) error {
	h.metadata = map[string]string{}
	return eachField(dec, func(key string) error {
		value, err := dec.Token()
		if err != nil {
			return corrupt("metadata %q: %v", key, err)
		}
		text, ok := value.(string)
		if !ok {
			return corrupt("metadata %q is not a string", key)
		}
		h.metadata[key] = text
		return nil
	})
}

func readEntry(dec *json.Decoder) (entry, error) {
	var e entry
	var offsets []int64
	err := eachField(dec, func(key string) error {
		var target any
		switch key {
		case "dtype":
			target = &e.dtype
		case "shape":
			target = &e.shape
		case "data_offsets":
			target = &offsets
		default:
			target = new(json.RawMessage)
		}
		if err := dec.Decode(target); err != nil {
			return corrupt("%s: %v", key, err)
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	if e.dtype == "" || e.shape == nil || len(offsets) != 2 {
		return e, corrupt("needs dtype, shape and two data_offsets")
	}
	size := dtypeSize(e.dtype)
	if size == 0 {
		return e, fmt.Errorf("dtype %q: %w", e.dtype, forager.ErrSchema)
	}
	e.begin, e.end = offsets[0], offsets[1]
	if e.begin < 0 || e.end < e.begin {
		return e, corrupt("data_offsets %v are not a range", offsets)
	}
	need, err := byteLength(size, e.shape)
	if err != nil {
		return e, corrupt("%v", err)
	}
	if e.end-e.begin != need {
		return e, corrupt("%s of shape %v takes %d bytes, data_offsets %v hold %d", e.dtype, e.shape, need, offsets, e.end-e.begin)
	}
	return e, nil
}

// checkLayout checks that the tensors cover the data exactly once.
func (h *header) checkLayout(dataSize int64) error {
	var at int64
	for _, name := range h.byOffset() {
		e := h.tensors[name]
		switch {
		case e.end > dataSize:
			return corrupt("tensor %q: ends at byte %d of %d: truncated or out of range", name, e.end, dataSize)
		case e.begin < at:
			return corrupt("tensor %q: overlaps its neighbour at byte %d", name, e.begin)
		case e.begin > at:
			return corrupt("tensor %q: %d unused bytes before it", name, e.begin-at)
		}
		at = e.end
	}
	if at != dataSize {
		return corrupt("%d unused bytes after the last tensor", dataSize-at)
	}
	return nil
}

// byOffset lists the tensors by position; empty tensors come before the tensor
// that starts at the same byte.
func (h *header) byOffset() []string {
	names := make([]string, 0, len(h.tensors))
	for name := range h.tensors {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		x, y := h.tensors[a], h.tensors[b]
		return cmp.Or(cmp.Compare(x.begin, y.begin), cmp.Compare(x.end, y.end), cmp.Compare(a, b))
	})
	return names
}

// eachField walks the JSON object that comes next and calls read for each key,
// with the decoder standing before the value. Equal keys are an error.
func eachField(dec *json.Decoder, read func(key string) error) error {
	open, err := dec.Token()
	if err != nil {
		return corrupt("%v", err)
	}
	if open != json.Delim('{') {
		return corrupt("%v where a JSON object should be", open)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return corrupt("%v", err)
		}
		key, ok := token.(string)
		if !ok {
			return corrupt("%v where a key should be", token)
		}
		if seen[key] {
			return corrupt("key %q occurs twice", key)
		}
		seen[key] = true
		if err := read(key); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return corrupt("%v", err)
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, forager.ErrCorrupt)...)
}
